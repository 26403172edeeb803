package bios.persistence.sampling;

import bios.persistence.embedded.ConnectionPool;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.embedded.StoredColumns;
import java.nio.file.Path;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;

/// Sampling tasks in the embedded database.
public final class JdbcSamplingTaskStore implements SamplingTaskStore, AutoCloseable {
    private static final String SCHEMA = """
            CREATE TABLE IF NOT EXISTS "bios_sampling_task" ("id" VARCHAR(255) PRIMARY KEY,
            "owner" VARCHAR(255) NOT NULL, "body" BLOB NOT NULL, "stored" BIGINT NOT NULL)""";
    private final ConnectionPool pool;
    private final InstantSource clock;

    private JdbcSamplingTaskStore(ConnectionPool pool, InstantSource clock) {
        this.pool = pool;
        this.clock = clock;
    }

    /// Opens the store in the database of `folder`; creates its table if it does not exist.
    public static JdbcSamplingTaskStore open(Path folder, InstantSource clock) {
        return open(EmbeddedDatabase.url(folder), clock);
    }

    /// The same in the database at `url`.
    public static JdbcSamplingTaskStore open(String url, InstantSource clock) {
        var tasks = new JdbcSamplingTaskStore(ConnectionPool.to(url), clock);
        tasks.execute("open", SCHEMA, PreparedStatement::executeUpdate);
        return tasks;
    }

    @Override public void close() {
        pool.close();
    }

    @Override public void put(String id, String owner, byte[] body) {
        long now = clock.millis();
        execute("write", """
                MERGE INTO "bios_sampling_task" ("id", "owner", "body", "stored") KEY ("id")
                VALUES (?, ?, ?, ?)""", s -> {
            s.setString(1, id);
            s.setString(2, owner);
            s.setBytes(3, body);
            s.setLong(4, now);
            return s.executeUpdate();
        });
    }

    @Override public Optional<Task> find(String id) {
        return execute("read", """
                SELECT "owner", "body", "stored" FROM "bios_sampling_task" WHERE "id" = ?""", s -> {
            s.setString(1, id);
            try (ResultSet rows = s.executeQuery()) {
                return rows.next() ? Optional.of(new Task(id, StoredColumns.text(rows, 1),
                        StoredColumns.bytes(rows, 2),
                        rows.getLong(3))) : Optional.empty();
            }
        });
    }

    @Override public void remove(List<String> ids) {
        execute("delete from", "DELETE FROM \"bios_sampling_task\" WHERE \"id\" = ?", s -> {
            for (String id : ids) {
                s.setString(1, id);
                s.addBatch();
            }
            return s.executeBatch();
        });
    }

    @Override public int deleteOlderThan(long ageMillis) {
        long before = clock.millis() - ageMillis;
        return execute("delete expired tasks of", "DELETE FROM \"bios_sampling_task\" WHERE \"stored\" < ?",
                s -> {
            s.setLong(1, before);
            return s.executeUpdate();
        });
    }

    private interface Work<T> {
        T with(PreparedStatement statement) throws SQLException;
    }

    private <T> T execute(String what, String sql, Work<T> work) {
        try {
            return pool.transact(connection -> {
                try (PreparedStatement statement = connection.prepareStatement(sql)) {
                    return work.with(statement);
                }
            });
        } catch (SQLException failed) {
            throw new IllegalStateException("cannot " + what + " the sampling tasks: " + failed.getMessage(),
                    failed);
        }
    }
}
