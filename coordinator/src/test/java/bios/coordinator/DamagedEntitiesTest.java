package bios.coordinator;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.owner.OwnerSettings;
import bios.coordinator.owner.OwnerSharding;
import bios.coordinator.session.SessionSettings;
import bios.coordinator.session.SessionSharding;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JdbcJournal;
import bios.persistence.journal.JournalDamaged;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.AuditEntry;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.sql.SQLException;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.function.Supplier;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.testkit.typed.javadsl.ManualTime;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.cluster.typed.Join;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Sessions and accounts whose events are damaged; [bios.coordinator.run] has the same test of runs.
class DamagedEntitiesTest {
    private static final String SETTINGS = """
            pekko.actor.provider = cluster
            pekko.remote.artery.canonical { hostname = "127.0.0.1", port = 0 }
            pekko.cluster { roles = [coordinator], jmx.enabled = off, downing-provider-class = "" }
            pekko.coordinated-shutdown.exit-jvm = off
            """;
    private static final Duration WAIT = Duration.ofMinutes(1);
    @TempDir Path folder;

    private ActorTestKit start() {
        EmbeddedDatabase.createSchema(folder);
        var kit = ActorTestKit.create("damaged", ConfigFactory.parseString(SETTINGS)
                .withFallback(JdbcJournal.config(folder)).withFallback(ConfigFactory.load()));
        var system = kit.system();
        var cluster = Cluster.get(system);
        cluster.manager().tell(Join.create(cluster.selfMember().address()));
        var config = system.settings().config();
        SessionSharding.init(system, SessionSettings.from(config),
                (_, _, _) -> CompletableFuture.completedFuture(true), InstantSource.system());
        OwnerSharding.init(system, OwnerSettings.from(config));
        return kit;
    }

    private static CompletionStage<SessionReply> open(ActorTestKit kit, String session) {
        return SessionSharding.ref(kit.system(), session).ask(r -> new SessionCommand.Open("alice",
                List.of(), "{}", "1", 5, Optional.empty(), r), WAIT);
    }

    private static CompletionStage<SessionReply> describe(ActorTestKit kit, String session, Duration limit) {
        return SessionSharding.ref(kit.system(), session).ask(r -> new SessionCommand.Describe("alice", r),
                limit);
    }

    private static CompletionStage<OwnerReply> record(ActorTestKit kit, String account) {
        return OwnerSharding.ref(kit.system(), account).ask(r -> new OwnerCommand.Record(
                new AuditEntry(5, "save_weights", Optional.empty(), Optional.empty(), ""), "", r), WAIT);
    }

    private static CompletionStage<OwnerReply> audit(ActorTestKit kit, String account, Duration limit) {
        return OwnerSharding.ref(kit.system(), account).ask(r -> new OwnerCommand.GetAudit(0, 9, r), limit);
    }

    private static <T> T join(CompletionStage<T> reply) {
        return reply.toCompletableFuture().join();
    }

    /// Waits for an answer: what an entity is sent before its recovery fails is lost.
    private static <T> T await(Supplier<CompletionStage<T>> ask) {
        for (int i = 0; i < 20; i++) {
            try {
                return join(ask.get());
            } catch (CompletionException lost) {
                // asked again
            }
        }
        throw new AssertionError("no answer");
    }

    /// Changes the stored time of an entity's events, so that their checksums are wrong, or right again.
    private void shift(String persistenceId, int millis) throws SQLException {
        try (var connection = EmbeddedDatabase.connect(EmbeddedDatabase.url(folder));
                var statement = connection.createStatement()) {
            assertTrue(statement.executeUpdate("UPDATE \"event_journal\" SET \"write_timestamp\" ="
                    + " \"write_timestamp\" + " + millis + " WHERE \"persistence_id\" = '" + persistenceId
                    + "'") > 0);
        }
    }

    @Test void aDamagedSessionAndAccountAnswerSoAndOthersGoOn() throws Exception {
        var kit = start();
        try {
            assertInstanceOf(SessionReply.Described.class, join(open(kit, "s-1")));
            assertInstanceOf(OwnerReply.Done.class, join(record(kit, "alice")));
        } finally {
            kit.shutdownTestKit();
        }
        shift("session|s-1", 1);
        shift("owner|alice", 1);
        kit = start();
        try {
            var asked = kit;
            await(() -> describe(asked, "s-1", Duration.ofSeconds(5)));
            await(() -> audit(asked, "alice", Duration.ofSeconds(5)));
            for (int i = 0; i < 3; i++) {
                var session = assertInstanceOf(SessionReply.Refused.class, join(describe(kit, "s-1", WAIT)));
                assertEquals("session_damaged", session.fault().code());
                assertTrue(session.fault().message().contains("session s-1 cannot be read"),
                        session.fault().message());
                var account = assertInstanceOf(OwnerReply.Unavailable.class, join(audit(kit, "alice", WAIT)));
                assertTrue(account.message().contains("account alice cannot be read"), account.message());
            }
            var damaged = DamagedEntities.get(kit.system());
            assertEquals(1, damaged.attempts("session|s-1"), "it is not read again at once");
            assertEquals(1, damaged.attempts("owner|alice"), "it is not read again at once");
            assertInstanceOf(SessionReply.Described.class, join(open(kit, "s-2")));
            assertInstanceOf(OwnerReply.Done.class, join(record(kit, "bob")));
        } finally {
            kit.shutdownTestKit();
        }
        shift("session|s-1", -1);
        shift("owner|alice", -1);
        kit = start();
        try {
            assertInstanceOf(SessionReply.Described.class, join(describe(kit, "s-1", WAIT)));
            var audit = assertInstanceOf(OwnerReply.Audit.class, join(audit(kit, "alice", WAIT)));
            assertEquals(1, audit.total());
        } finally {
            kit.shutdownTestKit();
        }
    }

    @Test void theEntityIsTriedAgainAfterWaitsThatGrow() {
        var kit = ActorTestKit.create("stand-in", ManualTime.config().withFallback(ConfigFactory.load()));
        try {
            var time = ManualTime.get(kit.system());
            var damaged = DamagedEntities.get(kit.system());
            var log = new ArrayList<String>();
            var probe = kit.<String>createTestProbe();
            for (int minutes : List.of(1, 2, 4, 8, 16, 30, 30)) {
                // Pekko signals a failed replay twice.
                for (int signal = 0; signal < 2; signal++) assertTrue(damaged.recoveryFailed("x|1",
                        "entity 1", new JournalDamaged("event 3"), log::add));
                var standIn = kit.spawn(damaged.standIn("x|1", String.class, (command, what) -> {
                    probe.getRef().tell(command + ": " + what);
                    return true;
                }).orElseThrow());
                time.timePasses(Duration.ofMinutes(minutes).minusMillis(1));
                standIn.tell("ask");
                assertTrue(probe.receiveMessage().startsWith("ask: entity 1 cannot be read"));
                time.timePasses(Duration.ofMillis(1));
                probe.expectTerminated(standIn);
                assertTrue(damaged.standIn("x|1", String.class, (_, _) -> true).isEmpty(), "it is due");
            }
            assertEquals(1, log.size(), "the damage is said once");
            damaged.recovered("x|1");
            assertEquals(0, damaged.attempts("x|1"));
        } finally {
            kit.shutdownTestKit();
        }
    }
}
