package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import bios.persistence.cassandra.TestCassandra;
import com.datastax.oss.driver.api.core.cql.Row;
import com.typesafe.config.Config;
import java.time.Duration;
import java.util.List;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.testkit.typed.javadsl.TestProbe;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.persistence.typed.PersistenceId;
import org.apache.pekko.persistence.typed.SnapshotCompleted;
import org.apache.pekko.persistence.typed.javadsl.CommandHandler;
import org.apache.pekko.persistence.typed.javadsl.EventHandler;
import org.apache.pekko.persistence.typed.javadsl.EventSourcedBehavior;
import org.apache.pekko.persistence.typed.javadsl.SignalHandler;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.ResourceLock;

/// Entities with events and snapshots in Cassandra, like runs and sessions.
@ResourceLock(TestCassandra.LOCK)
class CassandraEntityIT {
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    private static Config config;
    private static ActorTestKit kit;

    @BeforeAll static void open() {
        config = CassandraJournal.config().withFallback(TestCassandra.tables());
        kit = ActorTestKit.create("entities", config);
    }

    @AfterAll static void close() {
        kit.shutdownTestKit();
    }

    /// An entity that appends to a text; a text that ends with "!" takes a snapshot.
    static final class Text extends EventSourcedBehavior<Text.Add, String, String> {
        record Add(String text, ActorRef<String> replyTo) {}

        private final ActorRef<String> snapshots;

        Text(String id, ActorRef<String> snapshots) {
            super(PersistenceId.ofUniqueId(id));
            this.snapshots = snapshots;
        }

        @Override public String emptyState() {
            return "";
        }

        @Override public CommandHandler<Add, String, String> commandHandler() {
            return (state, add) -> add.text().isEmpty() ? Effect().reply(add.replyTo(), state)
                    : Effect().persist(List.of(add.text().split(","))).thenReply(add.replyTo(), now -> now);
        }

        @Override public EventHandler<String, String> eventHandler() {
            return (state, event) -> state + event;
        }

        @Override public boolean shouldSnapshot(String state, String event, long sequenceNr) {
            return event.endsWith("!");
        }

        @Override public SignalHandler<String> signalHandler() {
            return newSignalHandlerBuilder().onSignal(SnapshotCompleted.class, (_, done) ->
                    snapshots.tell("at " + done.getSnapshotMetadata().sequenceNr())).build();
        }
    }

    private static String ask(ActorRef<Text.Add> entity, String text) {
        TestProbe<String> probe = kit.createTestProbe();
        entity.tell(new Text.Add(text, probe.getRef()));
        return probe.receiveMessage(PATIENCE);
    }

    private static List<Row> rows(String text, Object... values) {
        try (var connection = CassandraConnection.to(CassandraSettings.of(config))) {
            Cql cql = connection.await();
            return Cql.await(cql.execute(text, values).thenCompose(cql::allRows));
        }
    }

    private static void stop(ActorRef<Text.Add> entity) {
        TestProbe<Object> probe = kit.createTestProbe();
        kit.stop(entity, PATIENCE);
        probe.expectTerminated(entity, PATIENCE);
    }

    @Test void aLargeSnapshotAndTheEventsAfterItAreRecoveredAndOlderEventsAreDeleted() {
        TestProbe<String> snapshots = kit.createTestProbe();
        String large = "x".repeat(2_500_000);
        var entity = kit.spawn(new Text("large", snapshots.getRef()));
        ask(entity, "a,b,c!");
        assertEquals("at 3", snapshots.receiveMessage(PATIENCE));
        ask(entity, "d," + large + "!");
        assertEquals("at 5", snapshots.receiveMessage(PATIENCE));
        ask(entity, "e,f");
        JournalPruning.before(kit.system(), "large", 5);
        stop(entity);
        snapshots.awaitAssert(PATIENCE, () -> {
            assertEquals(1, rows("SELECT seq FROM KEYSPACE.snapshots WHERE persistence_id = 'large'").size());
            assertEquals(
                    List.of(6L), rows("SELECT first_seq FROM KEYSPACE.events WHERE persistence_id = 'large'")
                    .stream().map(row -> row.getLong("first_seq")).toList());
            return null;
        });
        var again = kit.spawn(new Text("large", snapshots.getRef()));
        assertEquals("abc!d" + large + "!ef", ask(again, ""));
        stop(again);
    }

    @Test void anIncompleteSnapshotFailsTheRecovery() {
        TestProbe<String> snapshots = kit.createTestProbe();
        var entity = kit.spawn(new Text("broken", snapshots.getRef()));
        ask(entity, "y".repeat(1_200_000) + "!");
        assertEquals("at 1", snapshots.receiveMessage(PATIENCE));
        stop(entity);
        var id = rows("SELECT id FROM KEYSPACE.snapshots WHERE persistence_id = 'broken'").getFirst()
                .getUuid("id");
        assertEquals(3, rows("SELECT chunk FROM KEYSPACE.snapshot_chunks WHERE id = ?", id).size());
        rows("DELETE FROM KEYSPACE.snapshot_chunks WHERE id = ? AND chunk = 1", id);
        var again = kit.spawn(new Text("broken", snapshots.getRef()));
        snapshots.expectTerminated(again, PATIENCE);
    }

    @Test void ofTwoIncarnationsOfAnEntityOneStopsAndRecoversTheEventsOfTheOther() {
        TestProbe<String> snapshots = kit.createTestProbe();
        var here = kit.spawn(new Text("twice", snapshots.getRef()));
        assertEquals("a", ask(here, "a"));
        var there = kit.spawn(new Text("twice", snapshots.getRef()));
        assertEquals("ab", ask(there, "b"));
        // does not know of b
        TestProbe<String> unanswered = kit.createTestProbe();
        here.tell(new Text.Add("c", unanswered.getRef()));
        unanswered.expectTerminated(here, PATIENCE);
        unanswered.expectNoMessage(Duration.ZERO);
        var again = kit.spawn(new Text("twice", snapshots.getRef()));
        assertEquals("ab", ask(again, ""));
        stop(again);
        stop(there);
    }
}
