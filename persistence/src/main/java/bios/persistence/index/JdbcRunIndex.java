package bios.persistence.index;

import bios.persistence.embedded.ConnectionPool;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.embedded.StoredColumns;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunId;
import bios.protocol.stored.StoredTypes;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;

/// The run index in the embedded database.
public final class JdbcRunIndex implements StoredRunIndex {
    private static final StoredTypes TYPES = IndexTypes.TYPES;
    private static final List<String> SCHEMA = List.of("""
            CREATE TABLE IF NOT EXISTS "bios_run" ("run" VARCHAR(255) PRIMARY KEY,
            "owner" VARCHAR(255) NOT NULL, "created" BIGINT NOT NULL, "version" BIGINT NOT NULL,
            "manifest" VARCHAR(255) NOT NULL, "body" BLOB NOT NULL)""", """
            CREATE INDEX IF NOT EXISTS "bios_run_owner" ON "bios_run" ("owner", "created", "run")""", """
            CREATE TABLE IF NOT EXISTS "bios_checkpoint" ("run" VARCHAR(255) NOT NULL,
            "place" INTEGER NOT NULL, "owner" VARCHAR(255) NOT NULL, "created" BIGINT NOT NULL,
            "expires" BIGINT NOT NULL, "manifest" VARCHAR(255) NOT NULL, "body" BLOB NOT NULL,
            PRIMARY KEY ("run", "place"))""", """
            CREATE INDEX IF NOT EXISTS "bios_checkpoint_owner"
            ON "bios_checkpoint" ("owner", "created", "run", "place")""");

    private final ConnectionPool pool;
    private final InstantSource clock;

    private JdbcRunIndex(ConnectionPool pool, InstantSource clock) {
        this.pool = pool;
        this.clock = clock;
    }

    /// Opens the index in the database of `folder`; creates its tables if they do not exist.
    public static JdbcRunIndex open(Path folder, InstantSource clock) {
        return open(EmbeddedDatabase.url(folder), clock);
    }

    /// The same in the database at `url`.
    public static JdbcRunIndex open(String url, InstantSource clock) {
        var index = new JdbcRunIndex(ConnectionPool.to(url), clock);
        index.inTransaction("open", connection -> {
            try (Statement statement = connection.createStatement()) {
                for (String sql : SCHEMA) statement.execute(sql);
            }
            return null;
        });
        return index;
    }

    @Override public void close() {
        pool.close();
    }

    @Override public void put(RunSummary summary, long version) {
        String run = summary.config().run().value();
        inTransaction("write run " + run + " to", connection -> {
            if (newer(connection, run, version)) return null;
            merge(connection, summary, version);
            delete(connection, "bios_checkpoint", run);
            insertCheckpoints(connection, summary);
            return null;
        });
    }

    private static boolean newer(Connection connection, String run, long version) throws SQLException {
        try (PreparedStatement s = connection
                .prepareStatement("SELECT \"version\" FROM \"bios_run\" WHERE \"run\" = ? FOR UPDATE")) {
            s.setString(1, run);
            try (ResultSet rows = s.executeQuery()) {
                return rows.next() && rows.getLong(1) > version;
            }
        }
    }

    private static void merge(Connection connection, RunSummary summary, long version) throws SQLException {
        try (PreparedStatement s = connection
                .prepareStatement("MERGE INTO \"bios_run\" (\"run\", \"owner\", \"created\","
                        + " \"version\", \"manifest\", \"body\") KEY (\"run\") VALUES (?, ?, ?, ?, ?, ?)")) {
            s.setString(1, summary.config().run().value());
            s.setString(2, summary.config().owner());
            s.setLong(3, summary.config().createdAtMillis());
            s.setLong(4, version);
            s.setString(5, TYPES.manifest(summary));
            s.setBytes(6, TYPES.write(summary));
            s.executeUpdate();
        }
    }

    private static void insertCheckpoints(Connection connection, RunSummary summary) throws SQLException {
        try (PreparedStatement s = connection.prepareStatement(
                "INSERT INTO \"bios_checkpoint\" (\"run\", \"place\", \"owner\","
                + " \"created\", \"expires\", \"manifest\", \"body\") VALUES (?, ?, ?, ?, ?, ?, ?)")) {
            int place = 0;
            for (CheckpointManifest checkpoint : summary.checkpoints()) {
                s.setString(1, summary.config().run().value());
                s.setInt(2, place++);
                s.setString(3, summary.config().owner());
                s.setLong(4, checkpoint.createdAtMillis());
                s.setLong(5, checkpoint.expiresAtMillis().orElse(Long.MAX_VALUE));
                s.setString(6, TYPES.manifest(checkpoint));
                s.setBytes(7, TYPES.write(checkpoint));
                s.addBatch();
            }
            if (place > 0) s.executeBatch();
        }
    }

    @Override public void remove(RunId run) {
        inTransaction("remove run " + run + " from", connection -> {
            delete(connection, "bios_checkpoint", run.value());
            delete(connection, "bios_run", run.value());
            return null;
        });
    }

    private static void delete(Connection connection, String table, String run) throws SQLException {
        try (PreparedStatement s = connection.prepareStatement("DELETE FROM \"" + table
                + "\" WHERE \"run\" = ?")) {
            s.setString(1, run);
            s.executeUpdate();
        }
    }

    @Override public ListingPage<RunSummary> runs(String owner, int limit, long offset) {
        return page("\"bios_run\" WHERE \"owner\" = ? AND ? < " + Long.MAX_VALUE,
                "\"created\" DESC, \"run\" DESC", owner, limit, offset, RunSummary.class);
    }

    @Override public ListingPage<CheckpointManifest> checkpoints(String owner, int limit, long offset) {
        return page("\"bios_checkpoint\" WHERE \"owner\" = ? AND \"expires\" > ?",
                "\"created\" DESC, \"run\" DESC, \"place\" DESC", owner,
                limit, offset, CheckpointManifest.class);
    }

    @Override public List<RunId> expired() {
        long now = clock.millis();
        return inTransaction("read", connection -> {
            var runs = new ArrayList<RunId>();
            try (PreparedStatement s = connection.prepareStatement(
                    "SELECT DISTINCT \"run\" FROM \"bios_checkpoint\" WHERE \"expires\" <= ?")) {
                s.setLong(1, now);
                try (ResultSet rows = s.executeQuery()) {
                    while (rows.next()) runs.add(new RunId(StoredColumns.text(rows, 1)));
                }
            }
            return runs;
        });
    }

    private <T> ListingPage<T> page(String from, String order, String owner, int limit, long offset,
            Class<T> type) {
        if (limit < 1 || limit > MAX_PAGE || offset < 0)
            throw new IllegalArgumentException("limit " + limit + ", offset " + offset + "; expected 1 to "
                    + MAX_PAGE + ", at least 0");
        long now = clock.millis();
        return inTransaction("read", connection -> {
            var items = new ArrayList<T>();
            try (PreparedStatement s = connection.prepareStatement("SELECT \"manifest\", \"body\" FROM "
                    + from + " ORDER BY " + order + " LIMIT ? OFFSET ?")) {
                s.setString(1, owner);
                s.setLong(2, now);
                s.setInt(3, limit);
                s.setLong(4, offset);
                try (ResultSet rows = s.executeQuery()) {
                    while (rows.next()) IndexTypes.read(type, StoredColumns.text(rows, 1),
                            StoredColumns.bytes(rows, 2)).ifPresent(items::add);
                }
            }
            return new ListingPage<>(items, count(connection, from, owner, now));
        });
    }

    private static long count(Connection connection, String from, String owner, long now)
            throws SQLException {
        try (PreparedStatement s = connection.prepareStatement("SELECT COUNT(*) FROM " + from)) {
            s.setString(1, owner);
            s.setLong(2, now);
            try (ResultSet rows = s.executeQuery()) {
                rows.next();
                return rows.getLong(1);
            }
        }
    }

    /// @param what the transaction, for the error message: `cannot <what> the run index`
    private <T> T inTransaction(String what, ConnectionPool.Transaction<T> transaction) {
        try {
            return pool.transact(transaction);
        } catch (SQLException failed) {
            throw new IllegalStateException("cannot " + what + " the run index: " + failed.getMessage(),
                    failed);
        }
    }
}
