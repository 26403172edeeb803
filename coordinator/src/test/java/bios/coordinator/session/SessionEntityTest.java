package bios.coordinator.session;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JdbcJournal;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.RunId;
import bios.protocol.sampling.SampleTask;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.Sampler;
import bios.protocol.session.SessionCommand.SessionReply;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.testkit.typed.javadsl.TestProbe;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.persistence.typed.PersistenceId;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SessionEntityTest {
    private static final RunId RUN = new RunId("usf-finance-9f2c4be01a77");
    private static final Sampler SAMPLER = new Sampler(new ModelName("m"),
            Optional.of("bios://usf-finance-9f2c4be01a77/a"), Optional.empty());
    @TempDir Path folder;
    private final BlockingQueue<String> released = new LinkedBlockingQueue<>();
    private boolean runsAnswer = true;
    private ActorTestKit kit;

    @BeforeEach void start() {
        EmbeddedDatabase.createSchema(folder);
        kit = ActorTestKit.create("session",
                JdbcJournal.config(folder).withFallback(ConfigFactory.load()));
    }

    @AfterEach void stop() {
        kit.shutdownTestKit();
    }

    private ActorRef<SessionCommand> spawn(Duration endsAfter) {
        return spawn(endsAfter, InstantSource.system());
    }

    private ActorRef<SessionCommand> spawn(Duration endsAfter, InstantSource clock) {
        var settings = new SessionSettings(8, endsAfter, Duration.ofMillis(50), 2, 2, 3);
        return kit.spawn(SessionEntity.create("s-1", PersistenceId.of("session", "s-1"), settings,
                (owner, run, session) -> {
                    released.add(owner + " " + run + " " + session);
                    boolean answer = runsAnswer;
                    runsAnswer = true;
                    return CompletableFuture.completedFuture(answer);
                }, clock, Optional.empty()));
    }

    private SessionReply ask(ActorRef<SessionCommand> session,
            Function<ActorRef<SessionReply>, SessionCommand> command) {
        TestProbe<SessionReply> probe = kit.createTestProbe();
        session.tell(command.apply(probe.getRef()));
        return probe.receiveMessage(Duration.ofSeconds(10));
    }

    private SessionReply open(ActorRef<SessionCommand> session) {
        return ask(session, r -> new SessionCommand.Open("alice", List.of("t"), "{}", "1", 5,
                Optional.empty(), r));
    }

    @Test void aSessionRemembersRunsAndSamplersOverARestart() {
        var session = spawn(Duration.ofHours(1));
        assertInstanceOf(SessionReply.Refused.class,
                ask(session, r -> new SessionCommand.Heartbeat("alice", r)));
        open(session);
        ask(session, r -> new SessionCommand.AddRun("alice", RUN, r));
        ask(session, r -> new SessionCommand.AddRun("alice", RUN, r));
        assertEquals(new SessionReply.SamplerOpened("s-1:sample:7", SAMPLER),
                ask(session, r -> new SessionCommand.OpenSampler("alice", 7, SAMPLER, r)));
        kit.stop(session);
        var again = spawn(Duration.ofHours(1));
        assertEquals(new SessionReply.Described("s-1", List.of(RUN), List.of("s-1:sample:7"),
                Optional.empty()), open(again));
        var other = new Sampler(new ModelName("other"), Optional.empty(), Optional.empty());
        assertEquals(new SessionReply.SamplerOpened("s-1:sample:7", SAMPLER),
                ask(again, r -> new SessionCommand.OpenSampler("alice", 7, other, r)),
                "the first sampler under a number stays");
        assertInstanceOf(SessionReply.Refused.class,
                ask(again, r -> new SessionCommand.FindSampler("mallory", 7, r)));
        assertInstanceOf(SessionReply.Refused.class,
                ask(again, r -> new SessionCommand.FindSampler("alice", 8, r)));
        ask(again, r -> new SessionCommand.OpenSampler("alice", 8, other, r));
        ask(again, r -> new SessionCommand.FindSampler("alice", 7, r));
        assertEquals(new SessionReply.SamplerOpened("s-1:sample:9", other),
                ask(again, r -> new SessionCommand.OpenSampler("alice", 9, other, r)));
        assertEquals(List.of("s-1:sample:7", "s-1:sample:9"),
                ((SessionReply.Described) open(again)).samplers(),
                "of two, the one that was used longest ago has given way to a third");
        var expired = assertInstanceOf(SessionReply.Refused.class,
                ask(again, r -> new SessionCommand.FindSampler("alice", 8, r)));
        assertEquals("snapshot_expired", expired.fault().code());
        assertTrue(expired.fault().message().contains("save_weights_for_sampler(name="));
    }

    @Test void aSessionOpensAnyNumberOfSamplersAndDropsThoseThatNobodyUses() {
        var settings = new SessionSettings(8, Duration.ofHours(1), Duration.ofMillis(50), 2, 300, 3);
        var uses = new SamplerUses();
        Session session = Session.NONE
                .apply(new SessionEvent.SessionOpened("alice", List.of(), "{}", "1", 5));
        for (int i = 0; i < 1000; i++) {
            Session before = session;
            for (SessionEvent event : assertInstanceOf(Session.Decision.Accept.class, session.openSampler(
                    "alice", i, SAMPLER, () -> uses.longestAgo(before), settings)).events())
                session = session.apply((SessionEvent) SessionSerializer.TYPES.read(
                        SessionSerializer.TYPES.manifest(event), SessionSerializer.TYPES.write(event)));
            uses.use(i);
            uses.use(3);
        }
        assertEquals(300, session.samplers().size());
        assertTrue(session.samplers().keySet().containsAll(List.of(3L, 999L, 701L)));
        var unknown = assertInstanceOf(Session.Decision.Refuse.class, session.find("alice", 2000));
        assertEquals("not_found", unknown.why().code());
    }

    @Test void aSilentSessionEndsAndItsRunsReleaseItsSnapshots() throws Exception {
        runsAnswer = false;
        var session = spawn(Duration.ofMillis(300));
        open(session);
        ask(session, r -> new SessionCommand.AddRun("alice", RUN, r));
        String release = "alice " + RUN + " s-1";
        assertEquals(release, released.poll(10, TimeUnit.SECONDS));
        assertEquals(release, released.poll(10, TimeUnit.SECONDS),
                "a run that does not answer is asked again");
        SessionReply reply = ask(session, r -> new SessionCommand.Describe("alice", r));
        assertTrue(reply instanceof SessionReply.Refused(var why) && why.code().equals("not_found"),
                reply::toString);
    }

    @Test void aClockThatJumpsDoesNotChangeTheEndOfASession() throws Exception {
        var clock = new AtomicLong(1_700_000_000_000L);
        var random = new Random(5);
        var lasting = spawn(Duration.ofHours(1), () -> Instant.ofEpochMilli(clock.get()));
        open(lasting);
        for (int i = 0; i < 20; i++) {
            clock.addAndGet(random.nextLong(-1L << 33, 1L << 33));
            assertInstanceOf(SessionReply.Described.class,
                    ask(lasting, r -> new SessionCommand.Heartbeat("alice", r)));
        }
        kit.stop(lasting);
        var brief = spawn(Duration.ofMillis(300), () -> Instant.ofEpochMilli(clock.addAndGet(-1_000_000)));
        ask(brief, r -> new SessionCommand.AddRun("alice", RUN, r));
        assertEquals("alice " + RUN + " s-1", released.poll(10, TimeUnit.SECONDS));
    }
}
