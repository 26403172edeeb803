package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.client.Batch;
import bios.client.BiosClient;
import bios.client.BiosException;
import bios.client.BiosStreams;
import bios.client.ClientSettings;
import bios.client.Subscription;
import bios.client.TrainingRun;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.client.Answer;
import bios.protocol.client.Problem;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.RunId;
import bios.protocol.run.TensorData;
import bios.protocol.sampling.SamplingParams;
import com.fasterxml.jackson.databind.JsonNode;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.stream.javadsl.Sink;
import org.apache.pekko.stream.javadsl.Source;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// HTTP and the actor protocol give the same answers and refusals, and drive the same runs.
class DoorsTest {
    private static final String MODEL = TestService.MODEL.name().value();
    private static final String SESSION = "0a1b2c3d-0000-4000-8000-00000000000a";
    private static final SamplingParams PARAMS =
            new SamplingParams(Optional.of(4), Optional.of(1L), List.of(), List.of(), 1, -1, 1);

    @TempDir private static Path folder;
    private static RealService service;
    private static BiosClient client;
    private static String run;
    private static int port;
    private static String sampler;

    @BeforeAll static void start() throws Exception {
        port = freePort();
        service = new RealService(folder, Accounts.fromLines("keys",
                List.of("alice tml-alice-key", "bob tml-bob-key", "alice tml-alice-reads read")),
                "long-poll = 2 s, actors { enabled = on, port = " + port + " }");
        service.key = "tml-alice-key";
        client = BiosClient.connect(ClientSettings.of("127.0.0.1:" + port).withKey("tml-alice-key")
                .inSession(SESSION));
        done(service.post("create_session", "{'session_id': '" + SESSION + "'}"));
        run = done(service.post("create_model", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 900, 'base_model': '" + MODEL + "'}")).get("model_id").asText();
        sampler = ((Answer.SamplerOpened) ask(new Request.OpenSampler(SESSION, 900, Optional.of(MODEL),
                Optional.empty()))).sampler();
    }

    @AfterAll static void stop() {
        client.close();
        service.close();
    }

    static int freePort() throws IOException {
        try (var socket = new ServerSocket(0)) {
            return socket.getLocalPort();
        }
    }

    private static <T> T get(CompletionStage<T> stage) throws Exception {
        return stage.toCompletableFuture().get(60, TimeUnit.SECONDS);
    }

    private static Answer ask(Request request) throws Exception {
        return get(client.request(request));
    }

    private static JsonNode done(TestClient.Answer answer) {
        assertEquals(200, answer.status(), () -> answer.json().toString());
        return answer.json();
    }

    /// The same wrong request over both protocols.
    private record Wrong(TestClient.Answer overHttp, Request overActors) {}

    private static Datum datum(int[] tokens, Map<String, TensorData> inputs) {
        return new Datum(tokens, inputs);
    }

    private static Operation pass(LossFunction loss, Map<String, Double> settings, Datum... data) {
        return new Operation.ForwardBackward(List.of(data), loss, settings, false);
    }

    private static Wrong batch(String body, Operation operation) {
        return new Wrong(service.post("forward_backward", "{'model_id': '" + run
                + "', 'seq_id': 5, 'forward_backward_input': " + body + "}"),
                new Request.Submit(run, 5, operation));
    }

    private static String body(String loss, String tokens, String inputs) {
        return "{'loss_fn': '" + loss + "', 'data': [{'model_input': {'chunks': [{'tokens': " + tokens
                + "}]}, 'loss_fn_inputs': {" + inputs + "}}]}";
    }

    private static String longs(String name, String values) {
        return "'" + name + "': {'dtype': 'int64', 'data': " + values + "}";
    }

    private static List<Wrong> wrongBatches() {
        var loss = LossFunction.CROSS_ENTROPY;
        TensorData targets = TensorData.of(2L, 3L);
        int[] tokens = {1, 2};
        return List.of(batch(body("cross_entropy", "[1, 99999]", longs("target_tokens", "[2, 3]")),
                pass(loss, Map.of(), datum(new int[] {1, 99_999}, Map.of("target_tokens", targets)))),
                batch(body("cross_entropy", "[1, 2]", longs("target_tokens", "[2, -7]")), pass(loss,
                        Map.of(), datum(tokens, Map.of("target_tokens", TensorData.of(2L, -7L))))),
                batch(body("cross_entropy", "[1, 2]", ""), pass(loss, Map.of(), datum(tokens, Map.of()))),
                batch(body("cross_entropy", "[1, 2]", longs("target_tokens", "[2]")), pass(loss, Map.of(),
                        datum(tokens, Map.of("target_tokens", TensorData.of(2L))))),
                batch(body("cross_entropy", "[1, 2]", longs("target_tokens", "[2, 3]") + ", "
                        + longs("advantages", "[1, 1]")), pass(loss, Map.of(), datum(tokens,
                                Map.of("target_tokens", targets, "advantages", TensorData.of(1L, 1L))))),
                batch(body("cross_entropy", "[]", longs("target_tokens", "[]")), pass(loss, Map.of(),
                        datum(new int[0], Map.of("target_tokens", TensorData.of(new long[0]))))),
                batch("{'loss_fn': 'cross_entropy', 'data': []}", pass(loss, Map.of())),
                batch("{'loss_fn': 'ppo', 'loss_fn_config': {'beta': 1.0}, 'data': []}",
                        pass(LossFunction.PPO, Map.of("beta", 1.0))));
    }

    /// The user's metadata have names that no request has.
    @Test void metadataOfAnyNamesAreTakenByBoth() throws Exception {
        String metadata = "{\"purpose\":{\"colours\":[\"red\",{\"n\":1}]},\"data\":[1]}";
        var created = (Answer.Submitted) ask(new Request.CreateRun(SESSION, 920, MODEL, Optional.empty(),
                metadata));
        assertEquals(metadata, ((Answer.Run) ask(new Request.DescribeRun(created.run().orElseThrow())))
                .userMetadata());
        var again = service.post("create_model", "{'session_id': '" + SESSION + "', 'model_seq_id': 920,"
                + " 'base_model': '" + MODEL + "', 'user_metadata': " + metadata + "}");
        assertEquals(created.run().orElseThrow(), done(again).get("model_id").asText());
    }

    private static Wrong post(String path, String body, Request request) {
        return new Wrong(service.post(path, body), request);
    }

    private static String of(String id) {
        return "{'model_id': '" + id + "', 'seq_id': 5";
    }

    private static List<Wrong> wrongRequests() {
        String missing = "usf-tiny-0123456789abcdef";
        var step = new Operation.OptimStep(Optional.empty());
        var all = new ArrayList<Wrong>();
        for (String id : List.of(missing, "no run", "other-0123456789abcdef"))
            all.add(post("optim_step", of(id) + "}", new Request.Submit(id, 5, step)));
        all.add(post("optim_step", "{'model_id': '" + run + "', 'seq_id': 0}",
                new Request.Submit(run, 0, step)));
        all.add(post("save_weights", of(run) + ", 'path': 'a', 'ttl_seconds': 0}", new Request.Submit(run, 5,
                new Operation.SaveState(new CheckpointName("a"), "{}", Optional.of(0L)))));
        all.add(post("save_weights", of(run) + ", 'path': 'a', 'metadata': [1]}", new Request.Submit(run, 5,
                new Operation.SaveState(new CheckpointName("a"), "[1]", Optional.empty()))));
        all.add(post("save_weights_for_sampler", of(run) + "}", new Request.Submit(run, 5,
                new Operation.SaveSamplerWeights(Optional.empty(), Optional.empty(), Optional.empty()))));
        all.add(post("retrieve_future", "{'request_id': 'nothing'}", new Request.Retrieve("nothing")));
        all.add(post("retrieve_future", "{'request_id': 'sample:r1:x:sample:1:0:0123456789abcdef'}",
                new Request.Retrieve("sample:r1:x:sample:1:0:0123456789abcdef")));
        all.add(post("create_session", "{'session_id': 'mine'}",
                new Request.OpenSession("mine", List.of(), "{}", "x")));
        all.add(post("create_model", "{'session_id': '" + SESSION + "', 'model_seq_id': 901, 'base_model':"
                + " 'nobody/nothing'}", new Request.CreateRun(SESSION, 901, "nobody/nothing",
                        Optional.empty(), "{}")));
        all.add(post("create_model", "{'session_id': '" + SESSION + "', 'model_seq_id': 901, 'base_model': '"
                + MODEL + "', 'lora_config': {'rank': 0, 'alpha': 32.0}}", new Request.CreateRun(SESSION,
                        901, MODEL, Optional.of(Request.Adapter.ofRank(0)), "{}")));
        all.add(post("create_model", "{'session_id': '" + SESSION + "', 'model_seq_id': 901, 'base_model': '"
                + MODEL + "', 'lora_config': {'rank': 1, 'target_modules': ['x']}}", new Request.CreateRun(
                        SESSION, 901, MODEL, Optional.of(new Request.Adapter(1, 32, Optional.empty(),
                                List.of("x"))), "{}")));
        all.add(post("create_sampling_session", "{'session_id': '" + SESSION
                + "', 'sampling_session_seq_id': 901}", new Request.OpenSampler(SESSION, 901,
                        Optional.empty(), Optional.empty())));
        all.add(post("load_training_client", "{'session_id': '" + SESSION + "', 'model_seq_id': 901, 'path':"
                + " 'bios://" + run + "/none'}", new Request.CreateRunFrom(SESSION, 901, "bios://" + run
                        + "/none", "{}")));
        all.add(post("asample", "{'sampling_session_id': '" + sampler + "', 'seq_id': 1, 'prompt': {'chunks':"
                + " [{'tokens': [1]}]}, 'num_samples': 0}", new Request.Sample(sampler, 1, new int[] {1},
                        PARAMS, 0, false, 0)));
        all.add(post("asample", "{'sampling_session_id': 'x', 'seq_id': 1, 'prompt': {'chunks':"
                + " [{'tokens': [1]}]}}", new Request.Sample("x", 1, new int[] {1}, PARAMS, 1, false, 0)));
        all.add(post("unload_model", "{'model_id': '" + missing + "'}", new Request.Unload(missing)));
        all.add(new Wrong(service.get("training_runs/" + missing), new Request.DescribeRun(missing)));
        all.add(new Wrong(service.get("training_runs?limit=0"), new Request.ListRuns(0, 0, Map.of())));
        all.add(new Wrong(service.send("DELETE", "training_runs/" + run + "/checkpoints/weights/none",
                new byte[0]), new Request.DeleteCheckpoint("bios://" + run + "/none")));
        all.add(new Wrong(service.get("training_runs/" + missing + "/history?after=0"),
                new Request.History(missing, 10, Optional.of(0L))));
        all.add(new Wrong(service.get("training_runs?public=x"), new Request.ListRuns(0, 20,
                Map.of("public", "x"))));
        all.add(new Wrong(service.get("usage?owner=bob"), new Request.Usage(Optional.of("bob"), Map.of())));
        all.add(new Wrong(service.get("billing/usage/events?owner=-"), new Request.HourlyUsage(
                Optional.of("-"), Optional.empty(), Optional.empty())));
        all.add(post("training_runs/" + run + "/retry", "{}", new Request.TryAgain(run, Optional.empty())));
        for (long seq : List.of(-1L, 77L)) {
            all.add(post("training_runs/" + run + "/retry", "{'seq_id': " + seq + "}",
                    new Request.TryAgain(run, Optional.of(seq))));
            all.add(post("training_runs/" + run + "/give_up", "{'seq_id': " + seq + "}",
                    new Request.GiveUp(run, Optional.of(seq))));
        }
        all.add(post("tokenize", "{'base_model': 'none', 'text': 'x'}", new Request.Tokenize("none", "x",
                false)));
        return all;
    }

    @Test void whatIsRefusedOverHttpIsRefusedOverActorsForTheSameReason() throws Exception {
        var all = new ArrayList<>(wrongBatches());
        all.addAll(wrongRequests());
        for (Wrong wrong : all) refusal(wrong);
    }

    /// The refusal over both protocols, which is the same.
    private static Problem refusal(Wrong wrong) throws Exception {
        JsonNode http = wrong.overHttp().json();
        Answer answer = ask(wrong.overActors());
        var refused = assertInstanceOf(Answer.Refused.class, answer, () -> http + " but " + answer).why();
        assertEquals(http.path("error").asText(), refused.code(), http::toString);
        assertEquals(http.path("message").asText(), refused.message());
        assertEquals(http.path("field").asText(null), refused.field().orElse(null), http::toString);
        assertEquals(http.path("category").asText(), refused.kind().name().toLowerCase(
                java.util.Locale.ROOT));
        assertTrue(refused.request().isPresent());
        return refused;
    }

    /// The operation `seq` is the one that is set aside, over both protocols.
    private static void assertSetAside(TrainingRun own, long seq) throws Exception {
        Answer.Waiting waiting = get(own.describe()).waiting().orElseThrow();
        assertEquals(new Answer.Waiting(seq, "forward_backward", true, "out_of_memory", "no room"), waiting);
        JsonNode overHttp = done(service.get("training_runs/" + own.id())).get("waiting_operation");
        assertEquals(seq, overHttp.get("seq_id").asLong());
        assertTrue(overHttp.get("set_aside").asBoolean());
        assertEquals("out_of_memory", overHttp.get("code").asText());
    }

    @Test void aDecisionThatIsRepeatedThroughEitherDoorIsNotAboutTheNextOperation() throws Exception {
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        Batch large = Batch.ofTexts(List.of(new int[] {ScriptedEngine.TOO_LARGE, 2, 3}));
        String path = "training_runs/" + own.id();
        var aside = assertThrows(ExecutionException.class, () -> get(own.forwardBackward(large)));
        assertEquals("out_of_memory", ((BiosException) aside.getCause()).code());
        assertSetAside(own, 1);
        get(own.giveUp());
        assertThrows(ExecutionException.class, () -> get(own.forwardBackward(large)));
        assertSetAside(own, 2);
        done(service.post(path + "/give_up", "{'seq_id': 1}"));
        get(own.giveUp(1));
        assertEquals("conflict", refusal(post(path + "/retry", "{'seq_id': 1}",
                new Request.TryAgain(own.id().value(), Optional.of(1L)))).code());
        Problem unknown = refusal(post(path + "/give_up", "{'seq_id': 99}",
                new Request.GiveUp(own.id().value(), Optional.of(99L))));
        assertEquals("invalid", unknown.code());
        assertEquals(Optional.of("seq_id"), unknown.field());
        assertEquals("invalid", service.post(path + "/give_up", "{'seq': 2}").json().get("error").asText());
        assertSetAside(own, 2);
        get(own.tryAgain());
        assertInstanceOf(Answer.Evaluated.class, get(client.request(new Request.Retrieve(own.id() + ":2"))));
        done(service.post(path + "/retry", "{'seq_id': 2}"));
        get(own.tryAgain(2));
        assertEquals("conflict", refusal(post(path + "/give_up", "{'seq_id': 2}",
                new Request.GiveUp(own.id().value(), Optional.of(2L)))).code());
        assertEquals(Optional.empty(), get(own.describe()).waiting());
    }

    @Test void aRunThatWasCreatedOverHttpIsDrivenOverActorsAndTheOtherWayRound() throws Exception {
        String made = done(service.post("create_model", "{'session_id': '" + SESSION
                + "', 'model_seq_id': 950, 'base_model': '" + MODEL + "'}")).get("model_id").asText();
        TrainingRun driven = client.run(new RunId(made), 1);
        Batch batch = Batch.ofTexts(List.of(new int[] {1, 2, 3}));
        CompletionStage<Answer.Evaluated> evaluated = driven.forwardBackward(batch);
        CompletionStage<Answer.Stepped> stepped = driven.optimStep(AdamParams.DEFAULT);
        assertEquals(1, get(evaluated).logprobs().size());
        assertEquals(1, get(stepped).step());
        assertEquals("bios://" + made + "/a", get(driven.saveState("a")).path().orElseThrow());
        assertEquals(1, done(service.get("training_runs/" + made + "/checkpoints")).get("checkpoints")
                .size());
        assertEquals(3, done(service.get("training_runs/" + made + "/timings")).get("timings").size());

        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        JsonNode future = done(service.post("forward_backward", "{'model_id': '" + own.id()
                + "', 'seq_id': 7, 'forward_backward_input': " + body("cross_entropy", "[1, 2]",
                        longs("target_tokens", "[2, 3]")) + "}"));
        Answer result = ask(new Request.Retrieve(future.get("request_id").asText()));
        JsonNode overHttp = done(service.post("retrieve_future", future.toString()
                .replaceAll(",\"model_id\":\"[^\"]*\"", "")));
        var sameResult = assertInstanceOf(Answer.Evaluated.class, result);
        assertEquals(overHttp.get("metrics").get("loss:sum").asDouble(), sameResult.loss());
        assertEquals(overHttp.get("loss_fn_outputs").get(0).get("logprobs").get("data").size(),
                sameResult.logprobs().get(0).length);
        assertEquals(4, get(own.describe()).rank());
        assertEquals("created", get(own.history(10)).getFirst().kind());
    }

    @Test void anOperationThatIsSentAgainIsAppliedOnce() throws Exception {
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        var submit = new Request.Submit(own.id().value(), 3,
                new Operation.SaveState(new CheckpointName("a"), "{}", Optional.empty()));
        Answer first = ask(submit);
        assertEquals(first, ask(submit));
        assertEquals(own.id() + ":3", ((Answer.Submitted) first).request());
        assertInstanceOf(Answer.Saved.class, ask(new Request.Retrieve(own.id() + ":3")));
        assertEquals(1, done(service.get("training_runs/" + own.id() + "/timings")).get("timings").size());
        var other = (Answer.Refused) ask(new Request.Submit(own.id().value(), 3, new Operation.SaveState(
                new CheckpointName("b"), "{}", Optional.empty())));
        assertEquals("conflict", other.why().code());
    }

    @Test void manyOperationsKeepTheOrderOfTheCalls() throws Exception {
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        var all = IntStream.range(0, 60).mapToObj(i -> own.saveState("c" + i)).toList();
        for (var saved : all) get(saved);
        JsonNode timings = done(service.get("training_runs/" + own.id() + "/timings")).get("timings");
        assertEquals(60, timings.size());
        for (int i = 0; i < 60; i++) assertEquals(i + 1, timings.get(i).get("seq_id").asInt());
    }

    @Test void aBatchAndAResultLargerThanAMessageTravelInParts() throws Exception {
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        int length = TestService.MODEL.contextLength();
        List<int[]> texts = IntStream.range(0, 3500).mapToObj(i ->
                IntStream.range(0, length).map(t -> (i + t) % 50).toArray()).toList();
        Answer.Evaluated evaluated = get(own.forward(Batch.ofTexts(texts)));
        assertEquals(texts.size(), evaluated.logprobs().size());
        assertEquals(length - 1, evaluated.logprobs().getLast().length);
    }

    @Test void aSamplerGivesTheResultOfHttp() throws Exception {
        var result = get(get(client.sampler(MODEL)).sample(new int[] {1, 2}, PARAMS, 1));
        assertEquals(5, result.sequences().getFirst().tokens()[0]);
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        assertTrue(get(own.sampler()).id().startsWith(SESSION + ":sample:"));
        String weights = get(own.saveSamplerWeights("w")).path().orElseThrow();
        var ofWeights = get(client.samplerOf(weights));
        assertEquals(1, get(ofWeights.sample(new int[] {1}, PARAMS, 1)).sequences().size());
        assertTrue(get(client.checkpoints(0, 100)).checkpoints().stream().anyMatch(c ->
                c.path().equals(weights) && !c.training()));
        get(client.deleteCheckpoint(weights));
        get(client.deleteCheckpoint(weights));
        assertEquals(List.of(), get(own.checkpoints()));
        assertEquals(own.id(), CheckpointPath.parse(weights).run());
        get(own.unload());
        var closed = assertThrows(ExecutionException.class, () -> get(own.saveState("late")));
        assertEquals("run_closed", ((BiosException) closed.getCause()).code());
    }

    /// The next entry of this kind.
    private static Answer.HistoryEntry await(BlockingQueue<Answer.HistoryEntry> entries, String kind)
            throws Exception {
        while (true) {
            Answer.HistoryEntry entry = entries.poll(30, TimeUnit.SECONDS);
            assertTrue(entry != null, () -> "no entry " + kind + " in the history");
            if (entry.kind().equals(kind)) return entry;
        }
    }

    @Test void historyAndMetricsArePassedOnWithoutPolling() throws Exception {
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        var entries = new LinkedBlockingQueue<Answer.HistoryEntry>();
        var metrics = new LinkedBlockingQueue<Answer.OperationMetrics>();
        Subscription history = own.onHistory(0, entries::add);
        Subscription operations = own.onMetrics(0, metrics::add);
        await(entries, "created");
        get(own.saveState("a"));
        long first = await(entries, "checkpoint_saved").number().orElseThrow();
        own.forwardBackward(Batch.ofTexts(List.of(new int[] {1, 2, 3})));
        get(own.optimStep(AdamParams.DEFAULT));
        assertEquals(List.of("save_weights", "forward_backward", "optim_step"), List.of(take(metrics)
                .operation(), take(metrics).operation(), take(metrics).operation()));
        history.close();
        operations.close();
        get(history.ended());
        get(own.saveState("b"));
        // It goes on from a number: nothing is missing, and nothing comes twice.
        try (var again = own.onHistory(first, entries::add)) {
            Answer.HistoryEntry second = await(entries, "checkpoint_saved");
            assertEquals("weights/b", second.detail().get("checkpoint"));
            assertTrue(second.number().orElseThrow() > first && again.last() <= second.number().get());
        }
        List<Answer.OperationMetrics> all = get(own.metrics(100));
        assertEquals(List.of(1L, 2L, 3L, 4L), all.stream().map(Answer.OperationMetrics::number).toList());
        assertEquals(1, all.get(2).step());
        assertTrue(all.get(1).metrics().containsKey("loss:sum"), all::toString);
        JsonNode overHttp = done(service.get("training_runs/" + own.id() + "/metrics?after=1&limit=2"))
                .get("metrics");
        assertEquals(List.of(2, 3), List.of(overHttp.get(0).get("number").asInt(),
                overHttp.get(1).get("number").asInt()));
        assertEquals(all.get(1).metrics().get("loss:sum"),
                overHttp.get(0).get("metrics").get("loss:sum").asDouble());
    }

    private static <T> T take(BlockingQueue<T> queue) throws Exception {
        T taken = queue.poll(30, TimeUnit.SECONDS);
        assertTrue(taken != null, "nothing came");
        return taken;
    }

    @Test void aSubscriptionEndsWithAReason() throws Exception {
        var nobodys = new RunId("usf-tiny-0123456789abcdef");
        try (Subscription refused = client.run(nobodys, 1).onHistory(0, _ -> { })) {
            var why = assertThrows(ExecutionException.class, () -> get(refused.ended()));
            assertEquals("not_found", assertInstanceOf(BiosException.class, why.getCause()).code());
        }
        try (Subscription thrown = client.run(new RunId(run), 1).onHistory(0, _ -> {
            throw new IllegalArgumentException("the listener");
        })) {
            var why = assertThrows(ExecutionException.class, () -> get(thrown.ended()));
            assertInstanceOf(IllegalArgumentException.class, why.getCause());
        }
        var other = BiosClient.connect(ClientSettings.of("127.0.0.1:" + port).withKey("tml-alice-key"));
        Subscription closed = other.run(new RunId(run), 1).onMetrics(1_000_000, _ -> { });
        get(other.models());
        other.close();
        var why = assertThrows(ExecutionException.class, () -> get(closed.ended()));
        assertEquals("client_closed", assertInstanceOf(BiosException.class, why.getCause()).code());
    }

    @Test void batchesAndSubscriptionsFlow() throws Exception {
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        var batches = IntStream.range(0, 5).mapToObj(i ->
                Batch.ofTexts(List.of(new int[] {i, 2, 3}))).toList();
        ActorTestKit streams = ActorTestKit.create("streams", ConfigFactory.parseString(
                "pekko.actor.provider = local").withFallback(ConfigFactory.load()));
        assertEquals(5, get(Source.from(batches).via(BiosStreams.steps(own, AdamParams.DEFAULT, 2))
                .runWith(Sink.seq(), streams.system())).size());
        assertEquals("created", get(BiosStreams.history(own, 0).take(2)
                .runWith(Sink.seq(), streams.system())).getFirst().kind());
        assertEquals(List.of(4L, 5L, 6L), get(BiosStreams.metrics(own, 3).take(3)
                .map(Answer.OperationMetrics::number).runWith(Sink.seq(), streams.system())));
        streams.shutdownTestKit();
        assertEquals(10, done(service.get("training_runs/" + own.id() + "/timings")).get("timings").size());
    }

    @Test void usageIsTheSameOverBothDoors() throws Exception {
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        get(own.forwardBackward(Batch.ofTexts(List.of(new int[] {1, 2, 3}))));
        get(own.saveState("a"));
        get(get(client.sampler(MODEL)).sample(new int[] {1, 2}, PARAMS, 1));
        service.counted();
        Answer.Usage usage = null;
        for (int i = 0; i < 100 && (usage == null || trained(usage, own) == 0); i++) { // the index follows
            usage = get(client.usage(Optional.empty(), Map.of("training_run_id", own.id().value())));
            Thread.sleep(usage.runs().isEmpty() || trained(usage, own) == 0 ? 50 : 0); // edge: polls
        }
        assertEquals(2, trained(usage, own));
        JsonNode one = done(service.get("usage?training_run_id=" + own.id()));
        same(one, usage.sum());
        same(one.get("runs").get(0), usage.runs().getFirst());
        assertEquals(one.get("runs").get(0).get("session_id").asText(), usage.runs().getFirst().session()
                .orElseThrow());
        Answer.Usage all = get(client.usage());
        assertEquals("alice", all.owner());
        assertTrue(all.baseModels().stream().anyMatch(line -> line.sampledTokens() > 0), all::toString);
        JsonNode hours = done(service.get("billing/usage/events")).get("data");
        List<Answer.UsageEvent> events = get(client.hourlyUsage(Optional.empty(), Optional.empty()));
        assertTrue(events.stream().anyMatch(e -> e.kind().equals("sampling_sample")), events::toString);
        assertEquals(hours.findValue("token_count").asLong(), events.getFirst().tokens());
        assertEquals(List.of(), get(client.hourlyUsage(Optional.empty(), Optional.of(Instant.EPOCH))));
        for (Request another : List.of(new Request.Usage(Optional.of("bob"), Map.of()),
                new Request.HourlyUsage(Optional.of("bob"), Optional.empty(), Optional.empty())))
            assertEquals("operators_only", ((Answer.Refused) ask(another)).why().code());
        assertInstanceOf(Answer.Usage.class, ask(new Request.Usage(Optional.empty(),
                Map.of("format", "csv"))));
    }

    private static long trained(Answer.Usage usage, TrainingRun run) {
        return usage.runs().stream().filter(line -> line.run().equals(Optional.of(run.id().value())))
                .mapToLong(Answer.UsageLine::trainedTokens).sum();
    }

    private static void same(JsonNode http, Answer.UsageLine line) {
        assertEquals(http.get("tokens_trained").asLong(), line.trainedTokens());
        assertEquals(http.get("tokens_evaluated").asLong(), line.evaluatedTokens());
        assertEquals(http.get("stored_bytes").asLong(), line.storedBytes());
        assertEquals(http.get("sampling_requests").asLong(), line.samplingRequests());
        assertEquals(http.get("device_seconds").asDouble(), line.deviceSeconds());
    }

    @Test void listingsAreFilteredAndCheckpointsPublished() throws Exception {
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4)));
        String path = get(own.saveState("mine")).path().orElseThrow();
        Map<String, String> ofRun = Map.of("training_run_id", own.id().value());
        assertEquals(1, get(client.runs(0, 20, ofRun)).total());
        assertEquals(0, get(client.runs(0, 20, Map.of("project_id", "none"))).total());
        get(client.publish(path, true));
        assertTrue(get(own.checkpoints()).getFirst().published());
        awaitPublished(own, List.of(path));
        get(client.publish(path, false));
        awaitPublished(own, List.of());
    }

    /// The run index follows the run.
    private void awaitPublished(TrainingRun run, List<String> wanted) throws Exception {
        Map<String, String> published = Map.of("public", "true", "training_run_id", run.id().value());
        List<String> listed = List.of();
        for (int i = 0; i < 200 && (i == 0 || !listed.equals(wanted)); i++) {
            Thread.sleep(i == 0 ? 0 : 50); // edge: polls
            listed = get(client.checkpoints(0, 20, published)).checkpoints().stream()
                    .map(Answer.Checkpoint::path).toList();
        }
        assertEquals(wanted, listed);
    }

    @Test void aKeyForReadingOnlyReads() throws Exception {
        try (var reader = BiosClient.connect(ClientSettings.of("127.0.0.1:" + port)
                .withKey("tml-alice-reads"))) {
            assertEquals(run, get(reader.run(new RunId(run), 1).describe()).run());
            assertEquals(1, get(reader.models()).size());
            for (Request change : List.of(new Request.Unload(run), new Request.OpenSession(SESSION, List.of(),
                    "{}", "x"), new Request.Submit(run, 1, new Operation.OptimStep(Optional.empty()))))
                assertEquals("read_only_key", ((Answer.Refused) get(reader.request(change))).why().code());
        }
    }

    @Test void modelsAndTokenizersAreThere() throws Exception {
        assertEquals(List.of(MODEL), get(client.models()).stream().map(m -> m.name().value()).toList());
        assertEquals(1, get(client.tokenize(MODEL, "text")).length);
        assertEquals("text", get(client.detokenize(MODEL, new int[] {1})));
        assertTrue(get(client.runs(0, 20)).total() >= 1);
    }
}
