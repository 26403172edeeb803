package bios.persistence.journal;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import com.datastax.oss.driver.api.core.cql.AsyncResultSet;
import com.datastax.oss.driver.api.core.cql.Row;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.function.Consumer;
import org.apache.pekko.persistence.AtomicWrite;
import org.apache.pekko.persistence.PersistentRepr;
import org.apache.pekko.persistence.journal.japi.AsyncWriteJournal;
import org.apache.pekko.serialization.Serialization;
import org.apache.pekko.serialization.SerializationExtension;
import scala.concurrent.Future;

/// Pekko's journal in Cassandra, for several processes. Each atomic write is one row, written by a
/// lightweight transaction that advances the entity's highest sequence number (`head`) from the one before
/// it. So of two running incarnations of an entity, only one can write a sequence number; the other fails
/// with [JournalConflict], even if events were deleted in between.
///
/// It never rejects an event (nothing written, the entity continues): every failure fails the write, and the
/// entity stops.
public final class CassandraJournal extends AsyncWriteJournal {
    private static final String STORE = """
            UPDATE KEYSPACE.events SET head = ?, last_seq = ?, writer = ?, events = ?
            WHERE persistence_id = ? AND first_seq = ? IF head = ?""";
    private static final String STORED = """
            SELECT last_seq, writer, events FROM KEYSPACE.events
            WHERE persistence_id = ? AND first_seq = ?""";
    private static final String STATE =
            "SELECT DISTINCT head, deleted_to FROM KEYSPACE.events WHERE persistence_id = ?";
    private static final String ROW_BEFORE = """
            SELECT first_seq, last_seq FROM KEYSPACE.events WHERE persistence_id = ? AND first_seq <= ?
            ORDER BY first_seq DESC LIMIT 1""";
    private static final String ROWS = """
            SELECT first_seq, last_seq, writer, events FROM KEYSPACE.events
            WHERE persistence_id = ? AND first_seq >= ? AND first_seq <= ?""";
    private static final String HIDE =
            "UPDATE KEYSPACE.events USING TIMESTAMP ? SET deleted_to = ? WHERE persistence_id = ?";
    private static final String DELETE =
            "DELETE FROM KEYSPACE.events WHERE persistence_id = ? AND first_seq <= ?";

    private final CassandraSettings settings;
    private final CassandraConnection connection;
    private final Serialization serialization;
    private final Executor executor;

    /// Called by Pekko, which finds the class by its name.
    public CassandraJournal() {
        settings = CassandraSettings.of(context().system().settings().config());
        connection = CassandraConnection.to(settings);
        serialization = SerializationExtension.get(context().system());
        executor = context().system().dispatchers().lookup(context().props().dispatcher());
    }

    /// Settings that make Pekko store events and snapshots in the Cassandra of `bios.storage.cassandra`,
    /// whose schema must exist.
    public static Config config() {
        return ConfigFactory.parseResources(
                CassandraJournal.class.getClassLoader(), "cassandra-journal.conf");
    }

    @Override public void postStop() {
        connection.close();
    }

    @Override public Future<Iterable<Optional<Exception>>> doAsyncWriteMessages(
            Iterable<AtomicWrite> writes) {
        var rows = new ArrayList<EventRow>();
        for (AtomicWrite write : writes) rows.add(EventRow.of(write, serialization));
        var contents = rows.stream().map(this::bytes).toList();
        // In sequence: a row is never written without the one before it.
        CompletionStage<Void> all = CompletableFuture.completedFuture(null);
        for (int i = 0; i < rows.size(); i++) {
            EventRow row = rows.get(i);
            ByteBuffer bytes = contents.get(i);
            all = all.thenCompose(_ -> store(row, bytes));
        }
        // An empty result means that all writes succeeded.
        return ScalaFutures.of(all.thenApply(_ -> List.of()));
    }

    private ByteBuffer bytes(EventRow row) {
        ByteBuffer bytes = row.bytes();
        if (bytes.remaining() > settings.maxRowBytes())
            throw new EventTooLarge(
                    row.persistenceId(), row.first(), bytes.remaining(), settings.maxRowBytes());
        return bytes;
    }

    private CompletionStage<Void> store(EventRow row, ByteBuffer bytes) {
        Long before = row.first() == 1 ? null : row.first() - 1;
        return connection.ready().thenCompose(cql -> cql.retries().call(() ->
                cql.executeConditional(STORE, row.last(), row.last(), row.writer(), bytes.duplicate(),
                        row.persistenceId(), row.first(), before).thenCompose(outcome -> outcome.wasApplied()
                        ? CompletableFuture.<Void>completedFuture(null)
                        : checkConflict(cql, row, bytes, Cql.firstRow(outcome)))));
    }

    /// Called when the transaction was not applied: succeeds if an earlier attempt of this write, of unknown
    /// outcome, was applied; fails with [JournalConflict] if another writer has written.
    private static CompletionStage<Void> checkConflict(Cql cql, EventRow row, ByteBuffer bytes,
            Optional<Row> found) {
        return cql.readSerial(STORED, row.persistenceId(), row.first()).thenAccept(stored -> {
            boolean ours = stored.filter(s -> s.getLong("last_seq") == row.last()
                    && row.writer().equals(s.getString("writer"))
                    && bytes.equals(s.getByteBuffer("events"))).isPresent();
            if (ours) return;
            String head = found.filter(f -> !f.isNull("head")).map(f -> "" + f.getLong("head")).orElse("0");
            throw new JournalConflict(row.persistenceId(), row.first(), row.writer(), stored
                    .filter(s -> !s.isNull("writer"))
                            .map(s -> "writer " + s.getString("writer") + " has written it")
                    .orElse("the journal's last event is " + head));
        });
    }

    @Override public Future<Long> doAsyncReadHighestSequenceNr(String persistenceId, long from) {
        return ScalaFutures.of(connection.ready().thenCompose(cql -> head(cql, persistenceId)));
    }

    /// The highest sequence number. The serial read completes an interrupted transaction.
    private static CompletionStage<Long> head(Cql cql, String persistenceId) {
        return cql.readSerial(STATE, persistenceId)
                .thenApply(row -> row.map(found -> found.getLong("head")).orElse(0L));
    }

    @Override public Future<Void> doAsyncDeleteMessagesTo(String persistenceId, long to) {
        return ScalaFutures.of(connection.ready().thenCompose(cql -> head(cql, persistenceId)
                .thenCompose(head -> {
                    long cut = Math.min(to, head);
                    if (cut < 1) return CompletableFuture.completedFuture(null);
                    return cql.execute(HIDE, cut, cut, persistenceId)
                            .thenCompose(_ -> cql.execute(ROW_BEFORE, persistenceId, cut))
                            .thenCompose(rows -> deleteRows(cql, persistenceId, cut, Cql.firstRow(rows)));
                })));
    }

    /// Deletes the rows in which all events are hidden.
    private static CompletionStage<Void> deleteRows(
            Cql cql, String persistenceId, long cut, Optional<Row> last) {
        if (last.isEmpty()) return CompletableFuture.completedFuture(null);
        long until = last.get().getLong("last_seq") <= cut ? cut : last.get().getLong("first_seq") - 1;
        return cql.execute(DELETE, persistenceId, until).thenAccept(_ -> {});
    }

    @Override public Future<Void> doAsyncReplayMessages(String persistenceId, long from, long to, long max,
            Consumer<PersistentRepr> callback) {
        return ScalaFutures.of(connection.ready().thenCompose(cql ->
                cql.execute(STATE, persistenceId).thenCompose(state -> {
                    long deletedTo = Cql.firstRow(state).map(row -> row.getLong("deleted_to")).orElse(0L);
                    long begin = Math.max(from, deletedTo + 1);
                    if (begin > to || max < 1) return CompletableFuture.completedFuture(null);
                    var replay = new Replay(cql, persistenceId, to, max, callback, begin);
                    return cql.execute(ROW_BEFORE, persistenceId, begin).thenCompose(before ->
                            cql.executePaged(settings.replayRows(), ROWS, persistenceId, Cql.firstRow(before)
                                    .map(row -> row.getLong("first_seq")).orElse(begin), to))
                            .thenComposeAsync(replay::page, executor);
                })));
    }

    /// The state of one replay, which reads page by page.
    private final class Replay {
        private final Cql cql;
        private final String persistenceId;
        private final long to;
        private final Consumer<PersistentRepr> callback;
        private long next;
        private long left;

        Replay(Cql cql, String persistenceId, long to, long max, Consumer<PersistentRepr> callback,
                long next) {
            this.cql = cql;
            this.persistenceId = persistenceId;
            this.to = to;
            this.left = max;
            this.callback = callback;
            this.next = next;
        }

        CompletionStage<Void> page(AsyncResultSet page) {
            for (Row row : page.currentPage()) {
                if (next > to || left == 0) return CompletableFuture.completedFuture(null);
                if (row.getLong("last_seq") >= next) events(row);
            }
            if (next > to || left == 0) return CompletableFuture.completedFuture(null);
            if (page.hasMorePages()) return cql.retries().call(page::fetchNextPage)
                    .thenComposeAsync(this::page, executor);
            throw missing(to);
        }

        private void events(Row row) {
            long first = row.getLong("first_seq");
            if (first > next) throw missing(first - 1);
            EventRow stored = EventRow.read(persistenceId, first, row.getString("writer"),
                    row.getByteBuffer("events"));
            for (; next <= Math.min(stored.last(), to) && left > 0; next++, left--)
                callback.accept(stored.event(next, serialization));
        }

        private JournalDamaged missing(long until) {
            return new JournalDamaged("events " + next + " to " + until + " of " + persistenceId
                    + " are missing in the journal, which has later ones: Cassandra has lost them, or they"
                    + " were deleted during this recovery; try again, then restore Cassandra's data from a"
                    + " copy");
        }
    }
}
