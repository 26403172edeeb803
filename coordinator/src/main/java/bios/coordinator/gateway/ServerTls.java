package bios.coordinator.gateway;

import com.typesafe.config.Config;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.util.Optional;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import org.apache.pekko.http.javadsl.ConnectionContext;
import org.apache.pekko.http.javadsl.HttpsConnectionContext;

/// TLS of the HTTP server: `bios.gateway.tls`.
final class ServerTls {
    private ServerTls() {}

    /// The context of the block `bios.gateway.tls`; empty: plain HTTP.
    ///
    /// @throws IllegalArgumentException if the key store cannot be read
    static Optional<HttpsConnectionContext> of(Config block) {
        String file = block.getString("key-store");
        if (file.isBlank()) return Optional.empty();
        char[] password = block.getString("password").toCharArray();
        try (InputStream stored = Files.newInputStream(Path.of(file))) {
            KeyStore keys = KeyStore.getInstance("PKCS12");
            keys.load(stored, password);
            var managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            managers.init(keys, password);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(managers.getKeyManagers(), null, null);
            return Optional.of(ConnectionContext.httpsServer(context));
        } catch (IOException | GeneralSecurityException wrong) {
            throw new IllegalArgumentException("bios.gateway.tls.key-store: " + file
                    + " cannot be used: " + wrong.getMessage(), wrong);
        }
    }
}
