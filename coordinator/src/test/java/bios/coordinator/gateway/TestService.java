package bios.coordinator.gateway;

import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.fleet.ModelDirectory;
import bios.coordinator.sampling.KeptWeights;
import bios.coordinator.sampling.SampleRequestStore;
import bios.coordinator.sampling.SamplingRouter;
import bios.coordinator.sampling.SamplingSettings;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleResult.StopReason;
import com.typesafe.config.ConfigFactory;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.http.javadsl.ServerBinding;

/// A gateway on a free port with fakes of all its parts, and a client.
final class TestService extends TestClient implements AutoCloseable {
    static final ModelInfo MODEL = new ModelInfo(new ModelName("ultrasafe/usf-tiny"),
            "LlamaForCausalLM", 64, 100, 16, 2, "bfloat16", 12345);
    static final String SESSION = "0a1b2c3d-0000-4000-8000-00000000000a";

    final MemoryBlobs blobs = new MemoryBlobs();
    final FakeRuns runs = new FakeRuns(blobs);
    final FakeSessions sessions = new FakeSessions();
    final AtomicReference<EngineDirectory> directory = new AtomicReference<>(EngineDirectory.EMPTY);
    final List<EngineCommand.Sample> sampled = new ArrayList<>();
    final ActorTestKit kit;
    final ActorRef<EngineCommand> engine;
    /// Whether the engine leaves sampling requests unanswered.
    volatile boolean silentEngine;
    volatile boolean withoutTokenizer;
    /// Whether a test answers sampling itself: the commands are in [#manual].
    volatile boolean manualSampling;
    final BlockingQueue<EngineCommand> manual = new LinkedBlockingQueue<>();
    volatile Map<String, byte[]> tokenizerFiles = Map.of("tokenizer.json",
            "{}".getBytes(StandardCharsets.UTF_8), "tokenizer_config.json", new byte[0]);
    /// The memory of the requests and responses in progress.
    final RequestMemory memory;
    private final ServerBinding binding;

    TestService(Accounts accounts, String settings) {
        var config = ConfigFactory.parseString("pekko.actor.provider = local, pekko.loglevel = WARNING")
                .withFallback(ConfigFactory.load());
        kit = ActorTestKit.create("gateway-test", config);
        engine = kit.spawn(engine());
        directory.set(EngineDirectory.EMPTY.withEngine(engine,
                new EngineReply.Description(List.of(MODEL), 0, 0, List.of())));
        Behavior<ModelDirectory.Command> modelDirectory = Behaviors.receiveMessage(command -> {
            if (command instanceof ModelDirectory.Subscribe(var subscriber)) subscriber.tell(directory.get());
            return Behaviors.same();
        });
        var router = kit.spawn(SamplingRouter.create("r1",
                SamplingSettings.of(config.getConfig("bios.sampling")), kit.spawn(modelDirectory),
                SampleRequestStore.NONE, KeptWeights.ALL, () -> 1_000_000_000_000L));
        var ids = new Random(7);
        var block = ConfigFactory.parseString(settings).withFallback(config.getConfig("bios.gateway"));
        GatewaySettings given = GatewaySettings.of(block);
        memory = RequestMemory.of(given);
        var parts = new Gateway.Dependencies(accounts, runs, sessions, new FakeOwners(), directory::get,
                router, blobs, runs,
                () ->
                true,
                () -> Instant.ofEpochMilli(1_700_000_000_000L),
                () -> new UUID(ids.nextLong(), ids.nextLong()), new SecureRandom(new byte[] {1}), memory);
        binding = Gateway.bind(kit.system(), "127.0.0.1", 0, parts, given)
                .toCompletableFuture().join();
        post("create_session", "{'session_id': '" + SESSION + "'}");
    }

    @Override int port() {
        return binding.localAddress().getPort();
    }

    private Behavior<EngineCommand> engine() {
        return Behaviors.receiveMessage(command -> {
            switch (command) {
                case EngineCommand.Sample sample when manualSampling -> manual.add(sample);
                case EngineCommand.Sample sample -> {
                    synchronized (sampled) {
                        sampled.add(sample);
                    }
                    var sequence = new SampleResult.Sequence(new int[] {5, 6}, new float[] {-0.25f, -1},
                            StopReason.LENGTH, sample.task().params().drawsFromModel()
                                    ? Optional.empty() : Optional.of(new float[] {-0.5f, -2}),
                            sample.task().topkSampleLogprobs() > 0 ? Optional.of(List.of(
                                    List.of(new SampleResult.TokenLogprob(5, -0.25f),
                                            new SampleResult.TokenLogprob(7, -2)),
                                    List.of(new SampleResult.TokenLogprob(6, -1)))) : Optional.empty());
                    if (!silentEngine)
                        sample.replyTo().tell(new EngineReply.Sampled(sample.task().id(), new SampleResult(
                                Collections.nCopies(sample.task().numSamples(), sequence),
                                sample.task().promptLogprobs() ? Optional.of(scores(sample.task().prompt()))
                                : Optional.empty(), sample.task().topkPromptLogprobs() > 0
                                ? Optional.of(tops(sample.task().prompt())) : Optional.empty())));
                }
                case EngineCommand.Tokenize tokenize -> tokenize.replyTo().tell(new EngineReply.Tokenized(
                        tokenize.text().chars().map(c -> c % 100).toArray()));
                case EngineCommand.Detokenize detokenize -> detokenize.replyTo()
                        .tell(new EngineReply.Detokenized("text of " + detokenize.tokens().length
                                + (detokenize.skipSpecialTokens() ? "" : ", special ones too")));
                case EngineCommand.FetchTokenizerFiles fetch -> fetch.replyTo()
                        .tell(withoutTokenizer
                                ? new EngineReply.RequestFailed(Fault.user("no_tokenizer", "there is none"))
                                : new EngineReply.TokenizerFiles(tokenizerFiles));
                case EngineCommand.FollowSample _, EngineCommand.CancelSample _ -> manual.add(command);
                case EngineCommand.DetokenizeNext(_, _, var next, var last, var replyTo) ->
                        replyTo.tell(new EngineReply.DetokenizedNext(texts(next, last)));
                case EngineCommand.DetokenizeEach(_, var tokens, var replyTo) ->
                        replyTo.tell(new EngineReply.DetokenizedEach(Arrays.stream(tokens).mapToObj(token ->
                                token == 60 ? "\uFFFD" : token == 99 ? "<end>" : letter(token)).toList()));
                case EngineCommand.AlignText(_, var text, var replyTo) -> replyTo.tell(aligned(text));
                case EngineCommand.AlignTokens(_, var tokens, var replyTo) -> {
                    String[] texts = texts(tokens, true).toArray(String[]::new);
                    for (int i = 0; i < tokens.length; i++) if (tokens[i] == 99) texts[i] = "<end>";
                    replyTo.tell(new EngineReply.Aligned(tokens, String.join("", texts), ends(texts)));
                }
                case EngineCommand.OpenRun _, EngineCommand.Execute _, EngineCommand.TakeRecoveryPoint _,
                        EngineCommand.CloseRun _, EngineCommand.Describe _, EngineCommand.Drain _ -> { }
            }
            return Behaviors.same();
        });
    }

    private static float[] scores(int[] prompt) {
        float[] scores = new float[prompt.length];
        Arrays.fill(scores, -2);
        scores[0] = Float.NaN;
        return scores;
    }

    private static List<List<SampleResult.TokenLogprob>> tops(int[] prompt) {
        var tops = new ArrayList<>(Collections.nCopies(prompt.length,
                List.of(new SampleResult.TokenLogprob(3, -1.5f))));
        tops.set(0, List.of());
        return tops;
    }

    /// A token for each character behind token 99, which the tokenizer adds.
    private static EngineReply aligned(String text) {
        String[] texts = ("-" + text).split("");
        int[] tokens = Arrays.stream(texts).mapToInt(each -> each.charAt(0) % 100).toArray();
        tokens[0] = 99;
        texts[0] = "";
        return new EngineReply.Aligned(tokens, text, ends(texts));
    }

    private static int[] ends(String[] texts) {
        int[] ends = Arrays.stream(texts).mapToInt(String::length).toArray();
        Arrays.parallelPrefix(ends, Integer::sum);
        return ends;
    }

    /// Token 60 is half of a character, 99 has no text, and the others are letters.
    private static List<String> texts(int[] tokens, boolean last) {
        var texts = new ArrayList<String>();
        boolean half = false;
        for (int token : tokens) {
            if (token == 60 && !half) {
                half = true;
                continue;
            }
            if (half) texts.add("");
            texts.add(half ? "é" : token == 99 ? "" : letter(token));
            half = false;
        }
        if (half && last) texts.add("\uFFFD");
        return texts;
    }

    private static String letter(int token) {
        return Character.toString('a' + token % 26);
    }

    /// Creates the run with number `seq` and returns its id.
    String run(long seq) {
        return post("create_model", "{'session_id': '" + SESSION + "', 'model_seq_id': " + seq
                + ", 'base_model': 'ultrasafe/usf-tiny'}").text("model_id");
    }

    @Override public void close() {
        closeClient();
        kit.shutdownTestKit();
    }
}
