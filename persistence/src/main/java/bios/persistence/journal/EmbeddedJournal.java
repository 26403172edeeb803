package bios.persistence.journal;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import com.typesafe.config.ConfigValueFactory;
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
import org.apache.pekko.persistence.jdbc.journal.JdbcAsyncWriteJournal;

/// The journal of a single process: an H2 database in a file. What it has acknowledged survives the death of
/// the process (`WRITE_DELAY=0`; H2's default loses acknowledged events), not the loss of power. While the
/// disk is full its writes wait ([PatientFiles]).
public final class EmbeddedJournal {
    private static final String SCHEMA = "/schema/h2/h2-create-schema.sql";
    private static final int ALREADY_OPEN = 90020;
    /// Events up to this size lie in their row; larger ones in tables of their own, at twice the cost.
    private static final int BYTES_IN_ROW = 8192;

    private EmbeddedJournal() {}

    /// The JDBC address of the database in `folder`.
    public static String url(Path folder) {
        String file = folder.toAbsolutePath().normalize().resolve("journal").toString();
        if (file.indexOf(';') >= 0)
            throw new IllegalArgumentException("the data folder " + folder
                    + " must not hold ';' in its name");
        PatientFiles.register();
        return "jdbc:h2:" + PatientFiles.SCHEME + ":" + file
                + ";DATABASE_TO_UPPER=false;DB_CLOSE_ON_EXIT=FALSE;WRITE_DELAY=0"
                + ";MAX_LENGTH_INPLACE_LOB=" + BYTES_IN_ROW;
    }

    /// Settings that make Pekko keep events, snapshots and durable state in `folder`. Call [#createSchema]
    /// before the actor system starts.
    public static Config config(Path folder) {
        return ConfigFactory.parseResources(EmbeddedJournal.class.getClassLoader(), "embedded-journal.conf")
                .withValue("pekko-persistence-jdbc.shared-databases.slick.db.url",
                        ConfigValueFactory.fromAnyRef(url(folder)));
    }

    /// Makes folder and tables if they are not there. [JournalInUse] if another
    /// process has the database open.
    public static void createSchema(Path folder) {
        try {
            Files.createDirectories(folder);
        } catch (IOException failed) {
            throw new UncheckedIOException("the data folder " + folder + " cannot be made: "
                    + failed.getMessage(), failed);
        }
        try (Connection connection = DriverManager.getConnection(url(folder), "sa", "");
                Statement statement = connection.createStatement()) {
            for (String sql : schema().split(";\\s*\n")) if (!sql.isBlank()) statement.execute(sql);
        } catch (SQLException failed) {
            if (failed.getErrorCode() == ALREADY_OPEN) throw new JournalInUse(folder, failed);
            throw new IllegalStateException("the journal in " + folder + " cannot be opened: "
                    + failed.getMessage(), failed);
        }
    }

    private static String schema() {
        try (InputStream in = JdbcAsyncWriteJournal.class
                .getResourceAsStream(SCHEMA)) {
            String sql = new String(in.readAllBytes(), StandardCharsets.UTF_8);
            // The one statement of the plugin's script that cannot be repeated.
            return sql.replace("CREATE UNIQUE INDEX \"", "CREATE UNIQUE INDEX IF NOT EXISTS \"") + "\n";
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
