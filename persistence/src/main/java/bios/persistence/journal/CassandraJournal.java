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
/// lightweight transaction that moves the entity's highest number (`head`) on from the one before it. So of
/// two incarnations of an entity, one of which does not know that it is over, only one can write a number;
/// the other fails with [JournalConflict], whatever was deleted meanwhile.
///
/// What Pekko calls a rejection (nothing written, the entity goes on) does not occur: every failure fails the
/// write, and the entity stops.
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

    /// For Pekko, which makes it by name.
    public CassandraJournal() {
        settings = CassandraSettings.of(context().system().settings().config());
        connection = CassandraConnection.to(settings);
        serialization = SerializationExtension.get(context().system());
        executor = context().system().dispatchers().lookup(context().props().dispatcher());
    }

    /// Settings that make Pekko keep events and snapshots in the Cassandra of `bios.storage.cassandra`, whose
    /// schema must be there.
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
        // One after the other: a row is never written without the one before it.
        CompletionStage<Void> all = CompletableFuture.completedFuture(null);
        for (int i = 0; i < rows.size(); i++) {
            EventRow row = rows.get(i);
            ByteBuffer bytes = contents.get(i);
            all = all.thenCompose(_ -> store(row, bytes));
        }
        // An empty answer says that all went well.
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
        return connection.ready().thenCompose(cql -> cql.patience().with(() ->
                cql.decide(STORE, row.last(), row.last(), row.writer(), bytes.duplicate(),
                        row.persistenceId(), row.first(), before).thenCompose(outcome -> outcome.wasApplied()
                        ? CompletableFuture.<Void>completedFuture(null)
                        : whose(cql, row, bytes, Cql.first(outcome)))));
    }

    /// The head was not where we left it: because an attempt of ours, whose outcome we did not learn, has
    /// been carried out, or because somebody else has written.
    private static CompletionStage<Void> whose(Cql cql, EventRow row, ByteBuffer bytes, Optional<Row> found) {
        return cql.askSerially(STORED, row.persistenceId(), row.first()).thenAccept(stored -> {
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

    /// What an interrupted write has left undecided is decided by this reading.
    private static CompletionStage<Long> head(Cql cql, String persistenceId) {
        return cql.askSerially(STATE, persistenceId)
                .thenApply(row -> row.map(found -> found.getLong("head")).orElse(0L));
    }

    @Override public Future<Void> doAsyncDeleteMessagesTo(String persistenceId, long to) {
        return ScalaFutures.of(connection.ready().thenCompose(cql -> head(cql, persistenceId)
                .thenCompose(head -> {
                    long cut = Math.min(to, head);
                    if (cut < 1) return CompletableFuture.completedFuture(null);
                    return cql.ask(HIDE, cut, cut, persistenceId)
                            .thenCompose(_ -> cql.ask(ROW_BEFORE, persistenceId, cut))
                            .thenCompose(rows -> deleteRows(cql, persistenceId, cut, Cql.first(rows)));
                })));
    }

    /// Rows whose events are all hidden; one that has others stays.
    private static CompletionStage<Void> deleteRows(
            Cql cql, String persistenceId, long cut, Optional<Row> last) {
        if (last.isEmpty()) return CompletableFuture.completedFuture(null);
        long until = last.get().getLong("last_seq") <= cut ? cut : last.get().getLong("first_seq") - 1;
        return cql.ask(DELETE, persistenceId, until).thenAccept(_ -> {});
    }

    @Override public Future<Void> doAsyncReplayMessages(String persistenceId, long from, long to, long max,
            Consumer<PersistentRepr> callback) {
        return ScalaFutures.of(connection.ready().thenCompose(cql ->
                cql.ask(STATE, persistenceId).thenCompose(state -> {
                    long deletedTo = Cql.first(state).map(row -> row.getLong("deleted_to")).orElse(0L);
                    long begin = Math.max(from, deletedTo + 1);
                    if (begin > to || max < 1) return CompletableFuture.completedFuture(null);
                    var replay = new Replay(cql, persistenceId, to, max, callback, begin);
                    return cql.ask(ROW_BEFORE, persistenceId, begin).thenCompose(before -> cql.pages(
                            settings.replayRows(), ROWS, persistenceId, Cql.first(before)
                                    .map(row -> row.getLong("first_seq")).orElse(begin), to))
                            .thenComposeAsync(replay::page, executor);
                })));
    }

    /// One replay, page by page.
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
            if (page.hasMorePages()) return cql.patience().with(page::fetchNextPage)
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

        private IllegalStateException missing(long until) {
            return new IllegalStateException("events " + next + " to " + until + " of " + persistenceId
                    + " are not in the journal, which has later ones: Cassandra has lost them, or they were"
                    + " deleted during this recovery; try again, then restore Cassandra's data from a copy");
        }
    }
}
