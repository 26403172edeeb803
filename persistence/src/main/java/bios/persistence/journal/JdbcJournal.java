package bios.persistence.journal;

import bios.persistence.embedded.AcknowledgedLog;
import bios.persistence.embedded.ConnectionPool;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.embedded.StoredColumns;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import com.typesafe.config.ConfigValueFactory;
import java.io.IOException;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import org.apache.pekko.persistence.AtomicWrite;
import org.apache.pekko.persistence.PersistentRepr;
import org.apache.pekko.persistence.journal.japi.AsyncWriteJournal;
import org.apache.pekko.serialization.Serialization;
import org.apache.pekko.serialization.SerializationExtension;
import scala.concurrent.Future;

/// Pekko's journal in the embedded database. Events are written on the journal's own thread, one transaction
/// for each request: a commit takes a tenth of a millisecond, handing it to another thread and back takes as
/// long. Replays and deletions run on virtual threads.
///
/// Each event has a checksum, and the newest acknowledged event of each entity is also in the
/// [AcknowledgedLog]. A replay fails with [JournalDamaged] if an event is missing or damaged.
///
/// It never rejects an event (nothing written, the entity continues): every failure fails the write, and the
/// entity stops.
public final class JdbcJournal extends AsyncWriteJournal {
    private static final int REPLAY_ROWS = 200;
    private static final int DUPLICATE_KEY = 23505;
    static final String INSERT = """
            INSERT INTO "event_journal" ("persistence_id", "sequence_number", "writer", "write_timestamp",
            "adapter_manifest", "event_payload", "event_ser_id", "event_ser_manifest", "meta_payload",
            "meta_ser_id", "meta_ser_manifest", "checksum") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""";
    private static final String REPLAY = """
            SELECT "sequence_number", "writer", "write_timestamp", "adapter_manifest", "event_payload",
            "event_ser_id", "event_ser_manifest", "meta_payload", "meta_ser_id", "meta_ser_manifest",
            "checksum" FROM "event_journal" WHERE "persistence_id" = ? AND "sequence_number" BETWEEN ? AND ?
            AND NOT "deleted" ORDER BY "sequence_number" LIMIT ?""";
    private static final String LATER = """
            SELECT "sequence_number" FROM "event_journal" WHERE "persistence_id" = ? AND "sequence_number" > ?
            LIMIT 1""";
    static final String HIGHEST =
            "SELECT MAX(\"sequence_number\") FROM \"event_journal\" WHERE \"persistence_id\" = ?";
    /// The row with the highest number stays, so that the number is not used again; its payload does not.
    static final String MARK_DELETED = """
            UPDATE "event_journal" SET "deleted" = TRUE, "event_payload" = X''
            WHERE "persistence_id" = ? AND "sequence_number" = ?""";
    private static final String DELETE =
            "DELETE FROM \"event_journal\" WHERE \"persistence_id\" = ? AND \"sequence_number\" <= ?";

    private static final String DELETED =
            "SELECT \"up_to\" FROM \"deleted_events\" WHERE \"persistence_id\" = ?";
    static final String NOTE_DELETED = """
            MERGE INTO "deleted_events" ("persistence_id", "up_to", "replaced") KEY ("persistence_id")
            VALUES (?, ?, ?)""";

    private final String url;
    private final AcknowledgedLog acknowledged;
    private final ConnectionPool pool;
    private final Serialization serialization;
    private Optional<Insert> insert = Optional.empty();

    /// The statements that write events, with their connection.
    ///
    /// @param later finds an event behind those that were written
    private record Insert(Connection connection, PreparedStatement statement, PreparedStatement later) {}

    /// Called by Pekko, which finds the class by its name.
    public JdbcJournal(Config plugin) throws IOException {
        url = plugin.getString("url");
        acknowledged = AcknowledgedLog.open(Path.of(plugin.getString("folder")),
                plugin.getString("writer"));
        pool = ConnectionPool.to(url);
        serialization = SerializationExtension.get(context().system());
    }

    /// Settings that make Pekko store events and snapshots in the embedded database of `folder`. Call
    /// [EmbeddedDatabase#createSchema] before the actor system starts.
    public static Config config(Path folder) {
        return config(folder, EmbeddedDatabase.url(folder), "");
    }

    /// The same for a process that uses the database at `address`, which another one serves.
    ///
    /// @param writer the name of this process; empty: it has the database open itself
    public static Config config(Path folder, String address, String writer) {
        var url = ConfigValueFactory.fromAnyRef(address);
        var path = ConfigValueFactory.fromAnyRef(folder.toAbsolutePath().normalize().toString());
        return ConfigFactory.parseResources(JdbcJournal.class.getClassLoader(), "embedded-journal.conf")
                .withValue("bios-embedded-journal.url", url)
                .withValue("bios-embedded-journal.folder", path)
                .withValue("bios-embedded-journal.writer", ConfigValueFactory.fromAnyRef(writer))
                .withValue("bios-embedded-snapshots.url", url);
    }

    @Override public void postStop() throws IOException {
        closeInsert();
        pool.close();
        acknowledged.close();
    }

    @Override public Future<Iterable<Optional<Exception>>> doAsyncWriteMessages(
            Iterable<AtomicWrite> writes) {
        try {
            var rows = new ArrayList<EventRow>();
            for (AtomicWrite write : writes) rows.add(EventRow.of(write, serialization));
            write(rows);
            for (EventRow row : rows) acknowledged.add(row.persistenceId(), row.last());
            acknowledged.write();
            // An empty result means that all events are written.
            return Future.successful(List.of());
        } catch (SQLException | IOException | RuntimeException failed) {
            return ScalaFutures.failed(failed);
        }
    }

    /// Writes all events, or none. Fenced: a writer that was suspended while others wrote on is refused.
    /// Where their events are still there, its numbers are taken. Where they were deleted, a later one is
    /// there: the row of the highest number is never deleted. It is searched for behind the insertion, which
    /// keeps others from writing these numbers until the commit.
    private void write(List<EventRow> rows) throws SQLException {
        try {
            Insert into = openInsert();
            var last = new HashMap<String, EventRow>();
            for (EventRow row : rows) {
                add(into.statement(), row);
                last.put(row.persistenceId(), row);
            }
            into.statement().executeBatch();
            for (EventRow row : last.values()) requireNewest(into.later(), row);
            into.connection().commit();
        } catch (SQLException | RuntimeException failed) {
            closeInsert();    // closing rolls the transaction back
            if (failed instanceof SQLException sql && sql.getErrorCode() == DUPLICATE_KEY)
                throw new JournalConflict(rows.getFirst().persistenceId(), rows.getFirst().first(),
                        rows.getFirst().writer(), "it is in the journal already");
            throw failed;
        }
    }

    private static void requireNewest(PreparedStatement later, EventRow row) throws SQLException {
        later.setString(1, row.persistenceId());
        later.setLong(2, row.last());
        try (ResultSet found = later.executeQuery()) {
            if (found.next()) throw new JournalConflict(row.persistenceId(), row.first(), row.writer(),
                    "the journal has event " + found.getLong(1) + " already");
        }
    }

    /// A connection of its own, open until the journal stops or a write fails.
    private Insert openInsert() throws SQLException {
        if (insert.isEmpty()) {
            Connection connection = EmbeddedDatabase.connect(url);
            connection.setAutoCommit(false);
            insert = Optional.of(new Insert(connection, connection.prepareStatement(INSERT),
                    connection.prepareStatement(LATER)));
        }
        return insert.get();
    }

    private void closeInsert() {
        try {
            if (insert.isPresent()) insert.get().connection().close();
        } catch (SQLException _) {
            // Acknowledged events are committed.
        }
        insert = Optional.empty();
    }

    static void add(PreparedStatement statement, EventRow row) throws SQLException {
        long number = row.first();
        for (EventRow.Event event : row.events()) {
            statement.setLong(12, Checksum.of(row.persistenceId(), number, row.writer(), event));
            statement.setString(1, row.persistenceId());
            statement.setLong(2, number++);
            statement.setString(3, row.writer());
            statement.setLong(4, event.timestamp());
            statement.setString(5, event.adapter());
            statement.setBytes(6, event.payload().bytes());
            statement.setInt(7, event.payload().serializer());
            statement.setString(8, event.payload().manifest());
            StoredPayload metadata = event.metadata().orElse(null);
            statement.setBytes(9, metadata == null ? null : metadata.bytes());
            statement.setObject(10, metadata == null ? null : metadata.serializer());
            statement.setString(11, metadata == null ? null : metadata.manifest());
            statement.addBatch();
        }
    }

    @Override public Future<Long> doAsyncReadHighestSequenceNr(String persistenceId, long from) {
        return ScalaFutures.onVirtualThread(() -> pool.transact(connection -> highest(connection,
                persistenceId)));
    }

    private static long highest(Connection connection, String persistenceId) throws SQLException {
        return number(connection, HIGHEST, persistenceId);
    }

    /// The number that a query for an entity finds; 0 if it finds none.
    static long number(Connection connection, String sql, String persistenceId) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, persistenceId);
            try (ResultSet rows = statement.executeQuery()) {
                return rows.next() ? rows.getLong(1) : 0;
            }
        }
    }

    @Override public Future<Void> doAsyncDeleteMessagesTo(String persistenceId, long to) {
        return ScalaFutures.onVirtualThread(() -> pool.transact(connection -> {
            long highest = highest(connection, persistenceId);
            long upTo = Math.min(to, highest);
            if (upTo <= deletedTo(connection, persistenceId) && to != JournalPruning.ALL || highest == 0)
                return null;
            if (to >= highest) update(connection, MARK_DELETED, persistenceId, highest);
            update(connection, DELETE, persistenceId, Math.min(to, highest - 1));
            try (PreparedStatement statement = connection.prepareStatement(NOTE_DELETED)) {
                statement.setString(1, persistenceId);
                statement.setLong(2, upTo);
                statement.setBoolean(3, to != JournalPruning.ALL);
                statement.executeUpdate();
            }
            return null;
        }));
    }

    /// The events up to this number were deleted.
    private static long deletedTo(Connection connection, String persistenceId) throws SQLException {
        return number(connection, DELETED, persistenceId);
    }

    private static void update(Connection connection, String sql, String persistenceId, long number)
            throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, persistenceId);
            statement.setLong(2, number);
            statement.executeUpdate();
        }
    }

    @Override public Future<Void> doAsyncReplayMessages(String persistenceId, long from, long to, long max,
            Consumer<PersistentRepr> callback) {
        return ScalaFutures.onVirtualThread(() -> {
            try {
                long next = Math.max(from,
                        pool.transact(connection -> deletedTo(connection, persistenceId)) + 1);
                for (long left = max; left > 0 && next <= to; left -= REPLAY_ROWS)
                    next = replayPage(persistenceId, next, to, (int) Math.min(left, REPLAY_ROWS), callback);
                return null;
            } catch (SQLException failed) {
                throw EmbeddedDatabase.isDamage(failed)
                        ? new JournalDamaged("events of " + persistenceId + " cannot be read: " + failed,
                                failed)
                        : failed;
            }
        });
    }

    /// @return the number with which the next page begins
    private long replayPage(String persistenceId, long from, long to, int limit,
            Consumer<PersistentRepr> callback) throws SQLException {
        return pool.transact(connection -> {
            try (PreparedStatement statement = connection.prepareStatement(REPLAY)) {
                statement.setString(1, persistenceId);
                statement.setLong(2, from);
                statement.setLong(3, to);
                statement.setInt(4, limit);
                long next = from;
                try (ResultSet rows = statement.executeQuery()) {
                    for (; rows.next(); next++) {
                        if (rows.getLong(1) != next) throw missing(persistenceId, next, rows.getLong(1) - 1);
                        callback.accept(event(persistenceId, rows));
                    }
                }
                if (next <= to && next < from + limit) throw missing(persistenceId, next, to);
                return next;
            }
        });
    }

    private static JournalDamaged missing(String persistenceId, long from, long to) {
        return new JournalDamaged("events " + from + " to " + to + " of " + persistenceId
                + " are missing in the journal");
    }

    private PersistentRepr event(String persistenceId, ResultSet row) throws SQLException {
        long number = row.getLong(1);
        var payload = new StoredPayload(row.getInt(6), StoredColumns.text(row, 7),
                StoredColumns.bytes(row, 5));
        byte[] metadata = row.getBytes(8);
        var event = new EventRow.Event(row.getLong(3), StoredColumns.text(row, 4), payload, metadata == null
                ? Optional.empty()
                : Optional.of(new StoredPayload(row.getInt(9), StoredColumns.text(row, 10), metadata)));
        long checksum = row.getLong(11);
        // Events of earlier builds have none.
        boolean checked = !row.wasNull();
        String writer = StoredColumns.text(row, 2);
        if (checked && checksum != Checksum.of(persistenceId, number, writer, event))
            throw new JournalDamaged("event " + number + " of " + persistenceId + " is damaged");
        return new EventRow(persistenceId, number, writer, List.of(event))
                .event(number, serialization);
    }
}
