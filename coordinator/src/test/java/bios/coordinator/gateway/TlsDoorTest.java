package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.client.BiosClient;
import bios.client.ClientSettings;
import bios.protocol.client.ClientTransport.Certificates;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.KeyStore;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The actor protocol over TLS: who shows no certificate of the authority is not heard.
class TlsDoorTest {
    private static final char[] PASSWORD = "changeit".toCharArray();
    @TempDir private Path folder;

    /// A key with a certificate that is its own authority.
    private Certificates certificates(String name) throws Exception {
        Path store = folder.resolve(name + ".p12");
        var made = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin/keytool").toString(),
                "-genkeypair", "-alias", "k", "-keyalg", "RSA", "-keysize", "2048", "-validity", "2",
                "-dname", "CN=bios-clients", "-ext", "san=dns:bios-clients", "-ext", "bc:c", "-keystore",
                store.toString(), "-storetype", "PKCS12", "-storepass", new String(PASSWORD))
                .redirectErrorStream(true).start();
        String output = new String(made.getInputStream().readAllBytes());
        assertEquals(0, made.waitFor(), output);
        KeyStore keys = KeyStore.getInstance(store.toFile(), PASSWORD);
        Path certificate = pem(name + ".crt", "CERTIFICATE", keys.getCertificate("k").getEncoded());
        return new Certificates(pem(name + ".key", "PRIVATE KEY", keys.getKey("k", PASSWORD).getEncoded()),
                certificate, certificate);
    }

    private Path pem(String file, String kind, byte[] der) throws Exception {
        return Files.writeString(folder.resolve(file), "-----BEGIN " + kind + "-----\n"
                + Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(der) + "\n-----END " + kind
                + "-----\n");
    }

    /// A copy of the files, in files of this name.
    private Certificates copy(String name, Certificates from) throws Exception {
        var to = new Certificates(folder.resolve(name + ".key"), folder.resolve(name + ".crt"),
                folder.resolve(name + ".ca"), from.reload());
        replace(to, from);
        return to;
    }

    private static void replace(Certificates files, Certificates by) throws Exception {
        Files.copy(by.key(), files.key(), StandardCopyOption.REPLACE_EXISTING);
        Files.copy(by.certificate(), files.certificate(), StandardCopyOption.REPLACE_EXISTING);
        Files.copy(by.authority(), files.authority(), StandardCopyOption.REPLACE_EXISTING);
    }

    @Test void filesThatChangeAreUsedForNewConnectionsAndOpenOnesGoOn() throws Exception {
        Certificates first = certificates("first");
        Certificates second = certificates("second");
        Certificates own = copy("gateway", first);
        int port = DoorsTest.freePort();
        String address = "127.0.0.1:" + port;
        try (var service = new RealService(folder.resolve("rotated"), Accounts.open(), """
                actors { enabled = on, port = %d, tls-reload = 500 ms }
                actors { tls-key = "%s", tls-certificate = "%s", tls-authority = "%s" }
                """.formatted(port, own.key(), own.certificate(), own.authority()));
                var before = BiosClient.connect(ClientSettings.of(address).withCertificates(first))) {
            assertEquals(200, service.get("healthz").status());
            assertEquals(1, models(before, 60).size());
            replace(own, second);
            Thread.sleep(1000); // edge: the files are read again
            try (var after = BiosClient.connect(ClientSettings.of(address).withCertificates(second))) {
                assertEquals(1, models(after, 60).size());
                assertEquals(1, models(before, 10).size());
            }
            try (var late = BiosClient.connect(ClientSettings.of(address).withCertificates(first))) {
                assertThrows(TimeoutException.class, () -> models(late, 4));
            }
            assertEquals(1, models(before, 10).size());
        }
    }

    private static List<?> models(BiosClient client, int seconds) throws Exception {
        return client.models().toCompletableFuture().get(seconds, TimeUnit.SECONDS);
    }

    @Test void aClientOfTheAuthorityIsAnsweredAndNoOther() throws Exception {
        Certificates ours = certificates("ours");
        int port = DoorsTest.freePort();
        String address = "127.0.0.1:" + port;
        try (var service = new RealService(folder.resolve("data"), Accounts.open(), """
                actors { enabled = on, port = %d }
                actors { tls-key = "%s", tls-certificate = "%s", tls-authority = "%s" }
                """.formatted(port, ours.key(), ours.certificate(), ours.authority()))) {
            assertEquals(200, service.get("healthz").status());
            try (var client = BiosClient.connect(ClientSettings.of(address).withCertificates(ours))) {
                assertEquals(1, models(client, 60).size());
            }
            try (var plain = BiosClient.connect(ClientSettings.of(address));
                    var other = BiosClient.connect(ClientSettings.of(address)
                            .withCertificates(certificates("others")))) {
                assertThrows(TimeoutException.class, () -> models(plain, 4));
                assertThrows(TimeoutException.class, () -> models(other, 4));
            }
            try (var client = BiosClient.connect(ClientSettings.of(address).withCertificates(ours))) {
                assertEquals(1, models(client, 60).size());
            }
        }
    }
}
