package bios.persistence.embedded;

import java.nio.file.Path;
import java.security.SecureRandom;
import java.sql.SQLException;
import java.util.HexFormat;
import org.h2.tools.Server;

/// Lets other processes of this machine use the embedded database of this one, which has its file open. Only
/// a process that was given the address, which contains a random key, can connect.
public final class DatabaseServer implements AutoCloseable {
    private static final int KEY_BYTES = 24;

    private final Server server;
    private final String url;

    private DatabaseServer(Server server, String url) {
        this.server = server;
        this.url = url;
    }

    /// Serves the database in `folder`, which exists, to processes of this machine.
    public static DatabaseServer start(Path folder) {
        byte[] random = new byte[KEY_BYTES];
        new SecureRandom().nextBytes(random); // edge: a key
        String key = HexFormat.of().formatHex(random);
        try {
            Server server = Server.createTcpServer("-tcpPort", "0", "-tcpDaemon", "-ifExists", "-key", key,
                    EmbeddedDatabase.name(folder)).start();
            return new DatabaseServer(server, "jdbc:h2:tcp://127.0.0.1:" + server.getPort() + "/" + key);
        } catch (SQLException failed) {
            throw new IllegalStateException("the journal in " + folder + " cannot be served: "
                    + failed.getMessage(), failed);
        }
    }

    /// The JDBC address for the other processes; a secret.
    public String url() {
        return url;
    }

    @Override public void close() {
        server.stop();
    }
}
