package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.fleet.ModelDirectory;
import bios.coordinator.sampling.KeptWeights;
import bios.coordinator.sampling.SampleRequestStore;
import bios.coordinator.sampling.SamplingRouter;
import bios.coordinator.sampling.SamplingSettings;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import bios.protocol.sampling.SamplingParams;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletionException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorRefResolver;
import org.apache.pekko.actor.typed.javadsl.AskPattern;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/// Replies that are larger than a frame, between two processes' actor systems over TCP.
class LargeReplyTest {
    private static final Config REMOTE = ConfigFactory.parseString("""
            pekko.actor.provider = remote
            pekko.loglevel = WARNING
            pekko.remote.use-unsafe-remote-features-outside-cluster = on
            pekko.remote.warn-unsafe-watch-outside-cluster = off
            pekko.remote.artery {
              canonical { hostname = "127.0.0.1", port = 0 }
              advanced { maximum-frame-size = 1 MiB, maximum-large-frame-size = 1 MiB }
              large-message-destinations = ["/temp/*", "/user/engine", "/user/sampling", "/user/sampling/*"]
            }
            """).withFallback(ConfigFactory.load());
    private static final ActorTestKit COORDINATOR = ActorTestKit.create("coordinator", REMOTE);
    private static final ActorTestKit WORKER = ActorTestKit.create("worker", REMOTE);
    private static final Duration TIMEOUT = Duration.ofSeconds(20);
    private static final ModelInfo MODEL = new ModelInfo(new ModelName("m"), "LlamaForCausalLM",
            64, 100, 16, 2, "bfloat16", 5);
    private static final RunId RUN = new RunId("m-0123456789abcdef");

    @AfterAll static void stop() {
        COORDINATOR.shutdownTestKit();
        WORKER.shutdownTestKit();
    }

    /// The same actor as the other system knows it.
    private static <T> ActorRef<T> remote(ActorRef<T> ref, ActorTestKit its, ActorTestKit others) {
        return ActorRefResolver.get(others.system()).resolveActorRef(
                ActorRefResolver.get(its.system()).toSerializationFormat(ref));
    }

    private static <T, R> R ask(ActorRef<T> actor, Function<ActorRef<R>, T> message, ActorTestKit asker) {
        var memory = new RequestMemory(1 << 30);
        R reply = ask(actor, message, asker, memory);
        assertEquals(0, memory.taken());
        return reply;
    }

    private static <T, R> R ask(ActorRef<T> actor, Function<ActorRef<R>, T> message, ActorTestKit asker,
            RequestMemory memory) {
        return AskRetry.onDispatcher(AskPattern.<T, R>ask(actor, message::apply, TIMEOUT,
                asker.system().scheduler()), asker.system(), memory).toCompletableFuture().join();
    }

    private static SampleResult result() {
        int[] tokens = new int[8192];
        float[] logprobs = new float[8192];
        for (int i = 0; i < tokens.length; i++) {
            tokens[i] = i;
            logprobs[i] = -i;
        }
        return new SampleResult(Collections.nCopies(40, new SampleResult.Sequence(tokens, logprobs,
                SampleResult.StopReason.LENGTH)), Optional.empty(), Optional.empty());
    }

    @Test void aResultOfManySamplesArrivesAndIsComputedOnce() {
        var computed = new AtomicInteger();
        ActorRef<EngineCommand> engine = WORKER.spawn(Behaviors.<EngineCommand>receiveMessage(command -> {
            if (command instanceof EngineCommand.Sample(var task, var replyTo)) {
                computed.incrementAndGet();
                replyTo.tell(new EngineReply.Sampled(task.id(), result()));
            }
            return Behaviors.same();
        }), "engine");
        var directory = COORDINATOR.spawn(Behaviors.<ModelDirectory.Command>receiveMessage(command -> {
            if (command instanceof ModelDirectory.Subscribe(var subscriber)) subscriber.tell(
                    EngineDirectory.EMPTY.withEngine(remote(engine, WORKER, COORDINATOR),
                            new EngineReply.Description(List.of(MODEL), 0, 0, List.of())));
            return Behaviors.same();
        }));
        ActorRef<SamplingCommand> router = COORDINATOR.spawn(SamplingRouter.create("one",
                SamplingSettings.of(ConfigFactory.load().getConfig("bios.sampling")), directory,
                SampleRequestStore.NONE, KeptWeights.ALL, System::nanoTime), "sampling");
        var params = new SamplingParams(Optional.empty(), Optional.empty(), List.of(), List.of(), 1, -1, 1);
        var task = new SampleTask("t", MODEL.name(), Optional.empty(), new int[] {1}, params, 40, 1,
                false, 0);
        SamplingReply accepted = ask(router, replyTo -> new SamplingCommand.Submit("me", task, replyTo),
                COORDINATOR);
        assertEquals(new SamplingReply.Accepted("sample:one:t"), accepted);
        // A client of another coordinator: the result is too large for a frame again.
        SamplingReply reply = ask(remote(router, COORDINATOR, WORKER), replyTo ->
                new SamplingCommand.Retrieve("me", "sample:one:t", 15_000, replyTo), WORKER);
        List<SampleResult.Sequence> sequences = ((SamplingReply.Completed) reply).result().sequences();
        assertEquals(40, sequences.size());
        for (SampleResult.Sequence sequence : sequences) {
            assertArrayEquals(result().sequences().getFirst().tokens(), sequence.tokens());
            assertArrayEquals(result().sequences().getFirst().logprobs(), sequence.logprobs());
        }
        assertEquals(1, computed.get());
    }

    @Test void aResultOfManyTokensArrives() {
        float[] logprobs = new float[1 << 20];
        for (int i = 0; i < logprobs.length; i++) logprobs[i] = -i;
        ActorRef<RunCommand> run = runWith(logprobs);
        RunReply reply = ask(remote(run, WORKER, COORDINATOR), replyTo ->
                new RunCommand.Retrieve("me", 1, 1000, replyTo), COORDINATOR);
        var result = (OperationResult.Evaluated) ((RunReply.Completed) reply).result();
        assertArrayEquals(logprobs, result.logprobs().getFirst());
    }

    @Test void aReplyIsFetchedOnlyIfThereIsMemoryForIt() {
        var memory = new RequestMemory(32 << 20);
        RequestMemory.Share others = memory.new Share();
        others.take(24 << 20);
        ActorRef<RunCommand> run = remote(runWith(new float[1 << 20]), WORKER, COORDINATOR);
        Function<ActorRef<RunReply>, RunCommand> retrieve = replyTo ->
                new RunCommand.Retrieve("me", 1, 1000, replyTo);
        var refused = assertThrows(CompletionException.class, () -> ask(run, retrieve, COORDINATOR, memory));
        assertEquals(ErrorCode.BUSY, ((ApiException) refused.getCause()).code());
        others.release();
        assertEquals(0, memory.taken());
        assertInstanceOf(RunReply.Completed.class, ask(run, retrieve, COORDINATOR, memory));
        assertEquals(0, memory.taken());
    }

    /// A run of the other process that has a result.
    private static ActorRef<RunCommand> runWith(float[] logprobs) {
        return WORKER.spawn(Behaviors.<RunCommand>receiveMessage(command -> {
            if (command instanceof RunCommand.Retrieve retrieve)
                retrieve.replyTo().tell(new RunReply.Completed(new RequestId(RUN, 1),
                        new OperationResult.Evaluated(List.of(logprobs), Map.of("loss:sum", 1.0))));
            return Behaviors.same();
        }));
    }
}
