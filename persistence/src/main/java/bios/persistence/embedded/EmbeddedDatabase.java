package bios.persistence.embedded;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.sql.Statement;

/// The database of a single process: an H2 database in one file with events, snapshots, the run index and
/// sampling tasks. A commit that has returned survives the death of the process (`WRITE_DELAY=0`; with H2's
/// default it may be lost), not the loss of power. While the disk is full, writes wait
/// ([RetryingFileSystem]).
public final class EmbeddedDatabase {
    /// The only user, without a password: access to the file gives access to the data.
    static final String USER = "sa";
    private static final String SCHEMA = "/sql/embedded-schema-1.sql";
    private static final int ALREADY_OPEN = 90020;
    /// Contents up to this size are stored in their row; larger ones in tables of their own, at twice the
    /// cost.
    private static final int BYTES_IN_ROW = 8192;

    /// Pages of the database in memory. Its own default grows with the heap.
    private static final int CACHE_KIB = 32 << 10;

    private EmbeddedDatabase() {}

    /// The JDBC address of the database in `folder`.
    public static String url(Path folder) {
        String file = folder.toAbsolutePath().normalize().resolve("journal").toString();
        if (file.indexOf(';') >= 0)
            throw new IllegalArgumentException("the data folder " + folder
                    + " must not have ';' in its name");
        RetryingFileSystem.register();
        return "jdbc:h2:" + RetryingFileSystem.SCHEME + ":" + file
                + ";DATABASE_TO_UPPER=false;DB_CLOSE_ON_EXIT=FALSE;WRITE_DELAY=0"
                + ";MAX_LENGTH_INPLACE_LOB=" + BYTES_IN_ROW + ";CACHE_SIZE=" + CACHE_KIB;
    }

    /// A new connection to the database at `url`.
    public static Connection connect(String url) throws SQLException {
        return DriverManager.getConnection(url, USER, "");
    }

    /// Creates the folder and the tables of events and snapshots if they do not exist. [DatabaseInUse] if
    /// another process has the database open.
    public static void createSchema(Path folder) {
        try {
            Files.createDirectories(folder);
        } catch (IOException failed) {
            throw new UncheckedIOException("the data folder " + folder + " cannot be created: "
                    + failed.getMessage(), failed);
        }
        try (Connection connection = connect(url(folder));
                Statement statement = connection.createStatement()) {
            for (String sql : schema().split(";\\s*\n")) if (!sql.isBlank()) statement.execute(sql);
        } catch (SQLException failed) {
            if (failed.getErrorCode() == ALREADY_OPEN) throw new DatabaseInUse(folder, failed);
            throw new IllegalStateException("the journal in " + folder + " cannot be opened: "
                    + failed.getMessage(), failed);
        }
    }

    private static String schema() {
        try (InputStream in = EmbeddedDatabase.class.getResourceAsStream(SCHEMA)) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
