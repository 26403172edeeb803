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
        return ask(session, r -> new SessionCommand.Open("alice", List.of("t"), "{}", "1", 5, r));
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
        assertEquals(new SessionReply.Described("s-1", List.of(RUN), List.of("s-1:sample:7")), open(again));
        var other = new Sampler(new ModelName("other"), Optional.empty(), Optional.empty());
        assertEquals(new SessionReply.SamplerOpened("s-1:sample:7", SAMPLER),
                ask(again, r -> new SessionCommand.OpenSampler("alice", 7, other, r)),
                "the first sampler under a number stays");
        assertInstanceOf(SessionReply.Refused.class,
                ask(again, r -> new SessionCommand.FindSampler("mallory", 7, r)));
        assertInstanceOf(SessionReply.Refused.class,
                ask(again, r -> new SessionCommand.FindSampler("alice", 8, r)));
        ask(again, r -> new SessionCommand.OpenSampler("alice", 8, other, r));
        assertInstanceOf(SessionReply.Refused.class,
                ask(again, r -> new SessionCommand.OpenSampler("alice", 9, other, r)), "bounded");
    }

    @Test void samplersOfSnapshotsThatNewerOnesHaveFollowedAreDropped() {
        var settings = new SessionSettings(8, Duration.ofHours(1), Duration.ofMillis(50), 2, 300, 3);
        Session session = Session.NONE
                .apply(new SessionEvent.SessionOpened("alice", List.of(), "{}", "1", 5));
        for (int i = 0; i < 1000; i++)
            for (SessionEvent event : assertInstanceOf(Session.Decision.Accept.class,
                    session.openSampler("alice", i, snapshot(i), settings)).events())
                session = session.apply((SessionEvent) SessionSerializer.TYPES.read(
                        SessionSerializer.TYPES.manifest(event), SessionSerializer.TYPES.write(event)));
        assertEquals(Session.MOST_SNAPSHOTS, session.samplers().size());
        assertTrue(session.samplers().containsKey(999L) && !session.samplers().containsKey(934L));
        for (int i = 1000; i < 1235; i++)
            session = session.apply(new SessionEvent.SamplerPinned(i, SAMPLER));
        var refused = assertInstanceOf(Session.Decision.Refuse.class,
                session.openSampler("alice", 2000, SAMPLER, settings));
        assertEquals("limit_reached", refused.why().code(), "waiting does not help");
    }

    private static Sampler snapshot(int content) {
        var blob = new BlobRef(new BlobId("runs/" + RUN + "/checkpoints/1", "%064x".formatted(content)), 10);
        return new Sampler(new ModelName("m"), Optional.empty(), Optional.of(new SampleTask.Adapter(
                "c" + content, new LoraSpec(8, 16, 7, List.of(TargetModule.Q)), blob)));
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
