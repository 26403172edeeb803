package bios.coordinator.sampling;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.fleet.ModelDirectory;
import bios.coordinator.run.WeightKeeper;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import com.typesafe.config.ConfigFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.testkit.typed.javadsl.TestProbe;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.receptionist.Receptionist;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Tests router and directory as actors, with engines in the receptionist.
class SamplingRouterTest {
    private static final ActorTestKit KIT = ActorTestKit.create("router-test",
            ConfigFactory.parseString("pekko.actor.provider = local, pekko.loglevel = WARNING")
            .withFallback(ConfigFactory.load()));
    private static final ModelInfo MODEL = new ModelInfo(new ModelName("m"),
            "LlamaForCausalLM", 64, 100, 16, 2, "bfloat16", 5);
    private static final SamplingSettings SETTINGS =
            SamplingSettings.of(ConfigFactory.load().getConfig("bios.sampling"));

    private final List<ActorRef<EngineCommand>> engines = new ArrayList<>();

    @AfterAll static void stop() {
        KIT.shutdownTestKit();
    }

    /// All tests share one receptionist: the next test's requests would be sent to an engine that is left.
    @AfterEach void stopEngines() {
        engines.forEach(KIT::stop);
    }

    /// An engine that hands what it is sent to `then`, and stops when a run is closed.
    private ActorRef<EngineCommand> engine(Consumer<EngineCommand> then) {
        ActorRef<EngineCommand> engine = KIT.spawn(Behaviors.<EngineCommand>receiveMessage(command -> {
            if (command instanceof EngineCommand.Describe(var replyTo))
                replyTo.tell(new EngineReply.Description(List.of(MODEL), 0, 0, List.of()));
            else if (command instanceof EngineCommand.CloseRun) return Behaviors.stopped();
            else then.accept(command);
            return Behaviors.same();
        }));
        engines.add(engine);
        return engine;
    }

    private ActorRef<EngineCommand> engine(TestProbe<EngineCommand.Sample> seen) {
        return engine(command -> {
            if (command instanceof EngineCommand.Sample sample) seen.getRef().tell(sample);
        });
    }

    private static void register(ActorRef<EngineCommand> engine) {
        KIT.system().receptionist().tell(Receptionist.register(EngineCommand.ANY, engine));
    }

    private static SampleResult result() {
        return new SampleResult(List.of(new SampleResult.Sequence(new int[] {7}, new float[] {-1},
                SampleResult.StopReason.STOP)), Optional.empty(), Optional.empty());
    }

    @Test void aRequestOfALostEngineRunsOnAnotherEngineWithTheSameTask() {
        var published = new AtomicReference<>(EngineDirectory.EMPTY);
        var directory = KIT.spawn(ModelDirectory.create(published, Duration.ofMillis(50)));
        var one = KIT.spawn(SamplingRouter.create("one", SETTINGS, directory, SampleRequestStore.NONE,
                KeptWeights.ALL, System::nanoTime));
        var two = KIT.spawn(SamplingRouter.create("two", SETTINGS, directory, SampleRequestStore.NONE,
                KeptWeights.ALL, System::nanoTime));
        TestProbe<SamplingReply> client = KIT.createTestProbe();
        var task = SampleDispatcherTest.task("s:sample:1:0:ab", "");
        one.tell(new SamplingCommand.Submit("me", task, client.getRef()));
        assertEquals(new SamplingReply.Accepted("sample:one:s:sample:1:0:ab"), client.receiveMessage());
        one.tell(new SamplingCommand.Submit("me", task, client.getRef()));
        assertEquals(new SamplingReply.Accepted("sample:one:s:sample:1:0:ab"), client.receiveMessage());
        TestProbe<EngineCommand.Sample> first = KIT.createTestProbe();
        ActorRef<EngineCommand> lost = engine(first);
        register(lost);
        assertEquals(task, first.receiveMessage().task());
        assertEquals(List.of(MODEL), published.get().servedModels());
        TestProbe<SamplingReply> poll = KIT.createTestProbe();
        two.tell(new SamplingCommand.Retrieve("me", "sample:one:s:sample:1:0:ab", 60_000, poll.getRef()));
        lost.tell(new EngineCommand.CloseRun(null));
        TestProbe<EngineCommand.Sample> second = KIT.createTestProbe();
        ActorRef<EngineCommand> other = engine(second);
        register(other);
        EngineCommand.Sample again = second.receiveMessage();
        assertEquals(task, again.task());
        again.replyTo().tell(new EngineReply.Sampled(task.id(), result()));
        var done = (SamplingReply.Completed) poll.receiveMessage();
        assertEquals("sample:one:s:sample:1:0:ab", done.request());
        assertEquals(7, done.result().sequences().getFirst().tokens()[0]);
        one.tell(new SamplingCommand.Retrieve("you", "sample:one:s:sample:1:0:ab", 0, poll.getRef()));
        assertEquals(new SamplingReply.Foreign("sample:one:s:sample:1:0:ab"), poll.receiveMessage());
        for (String gone : List.of("sample:one:never", "sample:three:never", "sample:", "sample:one:")) {
            one.tell(new SamplingCommand.Retrieve("me", gone, 60_000, poll.getRef()));
            assertEquals(new SamplingReply.Gone(gone), poll.receiveMessage());
        }
        first.expectNoMessage(Duration.ZERO);
        second.expectNoMessage(Duration.ZERO);
    }

    @Test void aFollowerIsAnsweredByTheEngineThatTakesOver() {
        var directory = KIT.spawn(ModelDirectory.create(new AtomicReference<>(EngineDirectory.EMPTY),
                Duration.ofMillis(50)));
        var counted = new LinkedBlockingQueue<String>();
        var router = KIT.spawn(SamplingRouter.create("follow", SETTINGS, directory, SampleRequestStore.NONE,
                KeptWeights.ALL, (owner, of, tokens) -> counted.add(owner + " " + of.id() + " " + tokens),
                System::nanoTime));
        TestProbe<SamplingReply> client = KIT.createTestProbe();
        var task = SampleDispatcherTest.task("f", "");
        router.tell(new SamplingCommand.Submit("me", task, client.getRef()));
        String request = ((SamplingReply.Accepted) client.receiveMessage()).request();
        // It waits for the engine as the request does.
        router.tell(new SamplingCommand.Follow("me", request, new int[] {0}, 60_000, client.getRef()));
        router.tell(new SamplingCommand.Follow("you", request, new int[] {0}, 60_000, client.getRef()));
        assertEquals(new SamplingReply.Foreign(request), client.receiveMessage());
        TestProbe<EngineCommand> first = KIT.createTestProbe();
        ActorRef<EngineCommand> lost = following(first);
        register(lost);
        first.expectMessageClass(EngineCommand.Sample.class);
        var asked = first.expectMessageClass(EngineCommand.FollowSample.class);
        var drawn = new DrawnTokens(0, DrawnTokens.digest(new int[0], 0), new int[] {5}, new float[] {-1},
                Optional.empty());
        asked.replyTo().tell(new EngineReply.Drawn("f", List.of(drawn)));
        assertEquals(List.of(drawn), ((SamplingReply.Drawn) client.receiveMessage()).sequences());
        router.tell(new SamplingCommand.Follow("me", request, new int[] {1}, 60_000, client.getRef()));
        assertEquals(1, first.expectMessageClass(EngineCommand.FollowSample.class).received()[0]);
        lost.tell(new EngineCommand.CloseRun(null));
        TestProbe<EngineCommand> second = KIT.createTestProbe();
        ActorRef<EngineCommand> other = following(second);
        register(other);
        second.expectMessageClass(EngineCommand.Sample.class);
        assertEquals(1, second.expectMessageClass(EngineCommand.FollowSample.class).received()[0]);
        router.tell(new SamplingCommand.Cancel("you", request));
        router.tell(new SamplingCommand.Cancel("me", request));
        assertEquals("f", second.expectMessageClass(EngineCommand.CancelSample.class).task());
        assertEquals("cancelled", ((SamplingReply.Failed) client.receiveMessage()).fault().code());
        router.tell(new SamplingCommand.Follow("me", request, new int[] {1}, 10, client.getRef()));
        assertEquals("cancelled", ((SamplingReply.Failed) client.receiveMessage()).fault().code());
        router.tell(new SamplingCommand.Cancel("me", request));
        router.tell(new SamplingCommand.Follow("me", request, new int[] {1}, 10, client.getRef()));
        client.receiveMessage();
        assertEquals(List.of("me f 1"), List.copyOf(counted), "what was handed out counts, once");
    }

    private ActorRef<EngineCommand> following(TestProbe<EngineCommand> seen) {
        return engine(seen.getRef()::tell);
    }

    /// A request store in a map.
    private static final class MapStore implements SampleRequestStore {
        final Map<String, StoredRequest> requests = new ConcurrentHashMap<>();

        @Override public CompletionStage<Void> put(String request, StoredRequest stored) {
            requests.put(request, stored);
            return CompletableFuture.completedStage(null);
        }

        @Override public CompletionStage<Optional<StoredRequest>> find(String request) {
            return CompletableFuture.completedStage(Optional.ofNullable(requests.get(request)));
        }

        @Override public CompletionStage<Void> remove(List<String> expired) {
            requests.keySet().removeAll(expired);
            return CompletableFuture.completedStage(null);
        }

        @Override public CompletionStage<Void> deleteOlderThan(long ageMillis) {
            return CompletableFuture.completedStage(null);
        }
    }

    @Test void aRequestWhoseCoordinatorDiesIsAnsweredByAnotherOne() {
        var published = new AtomicReference<>(EngineDirectory.EMPTY);
        var directory = KIT.spawn(ModelDirectory.create(published, Duration.ofMillis(50)));
        var store = new MapStore();
        var lost = KIT.spawn(SamplingRouter.create("lost", SETTINGS, directory, store,
                KeptWeights.ALL, System::nanoTime));
        var clock = new AtomicLong();
        var successor = KIT.spawn(SamplingRouter.create("successor", SETTINGS, directory, store,
                KeptWeights.ALL, clock::get));
        TestProbe<SamplingReply> client = KIT.createTestProbe();
        var task = SampleDispatcherTest.task("s:sample:9:0:ab", "");
        lost.tell(new SamplingCommand.Submit("me", task, client.getRef()));
        String request = ((SamplingReply.Accepted) client.receiveMessage()).request();
        KIT.stop(lost);
        TestProbe<Receptionist.Listing> listed = KIT.createTestProbe();
        var key = SamplingCommand.key("lost");
        KIT.system().receptionist().tell(Receptionist.subscribe(key, listed.getRef()));
        while (!listed.receiveMessage().getServiceInstances(key).isEmpty()) {}
        successor.tell(new SamplingCommand.Retrieve("you", request, 60_000, client.getRef()));
        assertEquals(new SamplingReply.Foreign(request), client.receiveMessage());
        successor.tell(new SamplingCommand.Retrieve("me", request, 60_000, client.getRef()));
        TestProbe<EngineCommand.Sample> seen = KIT.createTestProbe();
        ActorRef<EngineCommand> engine = engine(seen);
        register(engine);
        EngineCommand.Sample sent = seen.receiveMessage();
        assertEquals(task, sent.task());
        sent.replyTo().tell(new EngineReply.Sampled(task.id(), result()));
        var done = (SamplingReply.Completed) client.receiveMessage();
        assertEquals(request, done.request());
        assertEquals(7, done.result().sequences().getFirst().tokens()[0]);
        for (String next : List.of("s:sample:9:1:ab", "s:sample:9:2:ab")) {
            successor.tell(new SamplingCommand.Submit("me", SampleDispatcherTest.task(next, ""),
                    client.getRef()));
            client.expectMessageClass(SamplingReply.Accepted.class);
            sent = seen.receiveMessage();
            sent.replyTo().tell(new EngineReply.Sampled(next, result()));
            successor.tell(new SamplingCommand.Retrieve("me", "sample:successor:" + next, 60_000,
                    client.getRef()));
            client.expectMessageClass(SamplingReply.Completed.class);
        }
        assertEquals(3, store.requests.size());
        clock.set(SETTINGS.resultAge().plusSeconds(1).toNanos());
        client.awaitAssert(() -> {
            // The newest result is kept.
            assertEquals(Set.of("sample:successor:s:sample:9:2:ab"), store.requests.keySet());
            return null;
        });
    }

    @Test void missingWeightsThatTheirRunHasReleasedAreExpired() {
        var asked = new ArrayList<BlobId>();
        WeightKeeper released = (_, weights, _) -> {
            asked.add(weights);
            return CompletableFuture.completedStage(
                    new RunReply.Refused(Reason.EXPIRED, "its weights were released"));
        };
        assertEquals("snapshot_expired", failure("released", released).code());
        assertEquals(1, asked.size());
        assertEquals("blob_missing", failure("kept", KeptWeights.ALL).code());
        WeightKeeper silent = (_, _, _) -> CompletableFuture.failedStage(new TimeoutException("silent"));
        assertEquals("blob_missing", failure("silent", silent).code());
    }

    /// The fault of a request whose weights the engine does not find.
    private Fault failure(String name, WeightKeeper keeper) {
        var published = new AtomicReference<>(EngineDirectory.EMPTY);
        var directory = KIT.spawn(ModelDirectory.create(published, Duration.ofMillis(50)));
        var fast = new AtomicLong(); // each look at the clock takes a second
        var router = KIT.spawn(SamplingRouter.create(name, SETTINGS, directory, SampleRequestStore.NONE,
                keeper, () -> fast.addAndGet(1_000_000_000L)));
        ActorRef<EngineCommand> engine = engine(command -> {
            if (command instanceof EngineCommand.Sample(_, var replyTo))
                replyTo.tell(new EngineReply.RequestFailed(Fault.server("blob_missing", "not there")));
        });
        register(engine);
        TestProbe<SamplingReply> client = KIT.createTestProbe();
        router.tell(new SamplingCommand.Submit("me", SampleDispatcherTest.task("t", "a"), client.getRef()));
        client.receiveMessage();
        router.tell(new SamplingCommand.Retrieve("me", "sample:" + name + ":t", 60_000, client.getRef()));
        var failed = (SamplingReply.Failed) client.receiveMessage(Duration.ofSeconds(60));
        KIT.stop(engine);
        return failed.fault();
    }

    /// The directory is a separate actor, so its newest publication may be older than the loss of an engine
    /// that the router already knows of.
    @Test void anOlderDirectoryDoesNotBringALostEngineBack() {
        TestProbe<ModelDirectory.Command> directory = KIT.createTestProbe();
        var router = KIT.spawn(SamplingRouter.create("stale", SETTINGS, directory.getRef(),
                SampleRequestStore.NONE, KeptWeights.ALL, System::nanoTime));
        ActorRef<EngineDirectory> subscriber =
                directory.expectMessageClass(ModelDirectory.Subscribe.class).subscriber();
        TestProbe<EngineCommand.Sample> first = KIT.createTestProbe();
        ActorRef<EngineCommand> lost = engine(first);
        var before = EngineDirectory.EMPTY.withEngine(lost,
                new EngineReply.Description(List.of(MODEL), 0, 0, List.of()));
        subscriber.tell(before);
        TestProbe<SamplingReply> client = KIT.createTestProbe();
        router.tell(new SamplingCommand.Submit("me", SampleDispatcherTest.task("t", ""), client.getRef()));
        client.expectMessageClass(SamplingReply.Accepted.class);
        first.receiveMessage();
        KIT.stop(lost);
        var again = new SamplingReply.Pending("sample:stale:t", "waiting for a worker again");
        client.awaitAssert(() -> {
            router.tell(new SamplingCommand.Retrieve("me", "sample:stale:t", 0, client.getRef()));
            assertEquals(again, client.receiveMessage());
            return null;
        });
        subscriber.tell(before.withEngine(lost,
                new EngineReply.Description(List.of(MODEL), 0, 1, List.of())));
        router.tell(new SamplingCommand.Retrieve("me", "sample:stale:t", 0, client.getRef()));
        assertEquals(again, client.receiveMessage());
        TestProbe<EngineCommand.Sample> second = KIT.createTestProbe();
        subscriber.tell(before.withEngine(engine(second),
                new EngineReply.Description(List.of(MODEL), 0, 0, List.of())));
        assertEquals("t", second.receiveMessage().task().id());
    }

    @Test void aPollWithoutAResultReportsTheReason() {
        var directory = KIT.spawn(Behaviors.<ModelDirectory.Command>ignore());
        var router = KIT.spawn(SamplingRouter.create("alone", SETTINGS, directory, SampleRequestStore.NONE,
                KeptWeights.ALL, System::nanoTime));
        TestProbe<SamplingReply> client = KIT.createTestProbe();
        router.tell(new SamplingCommand.Submit("me", SampleDispatcherTest.task("t", ""), client.getRef()));
        client.receiveMessage();
        router.tell(new SamplingCommand.Retrieve("me", "sample:alone:t", 10, client.getRef()));
        assertEquals(new SamplingReply.Pending("sample:alone:t", "waiting for a worker"),
                client.receiveMessage());
    }
}
