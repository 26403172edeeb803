package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.typesafe.config.ConfigFactory;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// HTTPS by configuration.
class HttpsTest {
    private static final String PASSWORD = "a password";
    @TempDir private Path folder;

    private Path keyStore() throws Exception {
        Path file = folder.resolve("bios.p12");
        int status = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin", "keytool").toString(),
                "-genkeypair", "-alias", "bios", "-keyalg", "EC", "-dname", "CN=bios", "-ext",
                "SAN=ip:127.0.0.1", "-storetype", "PKCS12", "-keystore", file.toString(), "-storepass",
                PASSWORD).inheritIO().start().waitFor();
        assertEquals(0, status);
        return file;
    }

    private static SSLContext trusting(Path file) throws Exception {
        KeyStore known = KeyStore.getInstance("PKCS12");
        try (InputStream stored = Files.newInputStream(file)) {
            known.load(stored, PASSWORD.toCharArray());
        }
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        trusted.setCertificateEntry("bios", known.getCertificate("bios"));
        var managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context;
    }

    @Test void aServerWithAKeyStoreSpeaksHttps() throws Exception {
        Path file = keyStore();
        try (var service = new RealService(folder.resolve("data"), Accounts.open(), "tls { key-store = \""
                + file + "\", password = \"" + PASSWORD + "\" }");
                var client = HttpClient.newBuilder().sslContext(trusting(file)).build()) {
            var answer = client.send(HttpRequest.newBuilder(URI.create("https://127.0.0.1:" + service.port()
                    + "/api/v1/healthz")).build(), HttpResponse.BodyHandlers.ofString());
            assertEquals(200, answer.statusCode());
            assertThrows(java.io.IOException.class, () -> client.send(HttpRequest.newBuilder(URI.create(
                    "http://127.0.0.1:" + service.port() + "/api/v1/healthz")).build(),
                    HttpResponse.BodyHandlers.ofString()));
        }
    }

    @Test void aKeyStoreThatCannotBeUsedIsNamed() {
        var wrong = assertThrows(IllegalArgumentException.class, () -> ServerTls.of(ConfigFactory.parseString(
                "key-store = \"/nowhere/bios.p12\", password = secret")));
        assertTrue(wrong.getMessage().contains("/nowhere/bios.p12")
                && !wrong.getMessage().contains("secret"), wrong.getMessage());
    }
}
