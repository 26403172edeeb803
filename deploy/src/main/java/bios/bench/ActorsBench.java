package bios.bench;

import bios.CommandFailed;
import bios.client.BiosClient;
import bios.client.ClientSettings;
import bios.command.Installation;
import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.TensorData;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.ToDoubleFunction;
import java.util.stream.LongStream;

/// Measures the actor protocol beside HTTP, both from this process through one real server: the round trip of
/// a small step, the operations per second of many runs at a time, and the rate at which large batches are
/// taken in. A batch of the last kind ends with an unknown token, so that no engine is measured. With the
/// operations per second comes what bounds them: the share of the time in which the engine was in a pass, and
/// the processor time of an operation in the server and in this process.
///
/// @param pairs measured pairs of `forward_backward` and `optim_step`
/// @param warmUp pairs before them
/// @param runs runs that have an operation each at the same time
/// @param seconds of the measurement of operations per second
public record ActorsBench(int pairs, int warmUp, int runs, int seconds) {
    private static final String MODEL = "bios/tiny";
    private static final int TOKENS = 8;
    private static final int LARGE_SEQUENCES = 1000;
    private static final int LARGE_TOKENS = 250;
    private static final int LARGE_TIMES = 10;
    private static final int ROUNDS = 3;

    /// The calls that are measured, over one of the two protocols.
    interface Protocol extends AutoCloseable {
        CompletionStage<String> createRun(long number);

        /// Completes when the operation is done, or refused; why it was refused, empty if it is done. The
        /// operations of a run are accepted in the order of these calls.
        CompletionStage<Optional<String>> submit(String run, long seq, Operation operation);

        @Override void close();
    }

    /// Starts a server on the small model that comes with Bios, and measures.
    public Report run() throws IOException {
        Path data = Files.createTempDirectory("bios-bench-");
        int port;
        try (var free = new ServerSocket(0)) {
            port = free.getLocalPort();
        }
        Path settings = Files.writeString(data.resolve("bios.conf"),
                "bios.gateway.actors { enabled = on, port = " + port + " }");
        Report report = new Report("gateway-actors", "");
        report.line().put("model", MODEL).put("runs", runs);
        try (Child server = Child.bios(List.of("up", "--port", "0", "--data", data.toString(), "--model",
                MODEL + "=" + Installation.tinyModel(), "--config", settings.toString()))) {
            String url = server.await("bios ready on ");
            try (var meter = new Meter(url, server.pid());
                    var http = new Measured(new HttpProtocol(url), meter);
                    var actors = new Measured(new ActorProtocol("127.0.0.1:" + port), meter)) {
                List<Measured> both = List.of(http, actors);
                both.forEach(Measured::warmUp);
                for (int i = 0; i < ROUNDS; i++)
                    (i % 2 == 0 ? both : both.reversed()).forEach(Measured::round);
                report.line().set("http", http.json());
                report.line().set("actors", actors.json());
                report.line().put("ratio", Report.two(actors.operations() / http.operations()));
            }
        } finally {
            Setup.delete(data);
        }
        return report;
    }

    /// One protocol and what has been measured over it: the medians of the rounds count.
    private final class Measured implements AutoCloseable {
        private final Protocol protocol;
        private final Meter meter;
        private final String run;
        private final List<String> many = new ArrayList<>();
        private final List<Double> millis = new ArrayList<>();
        private final List<Double> perSecond = new ArrayList<>();
        private final List<Cost> costs = new ArrayList<>();
        private final List<Double> megabytes = new ArrayList<>();
        private int steps;
        private long seq = 1;

        Measured(Protocol protocol, Meter meter) {
            this.protocol = protocol;
            this.meter = meter;
            run = protocol.createRun(1).toCompletableFuture().join();
            for (int i = 0; i < runs; i++)
                many.add(protocol.createRun(10L + i).toCompletableFuture().join());
        }

        /// Until Java has compiled what counts, in the server and here.
        void warmUp() {
            for (int i = 0; i < warmUp; i++) step();
            operationsPerSecond();
        }

        void round() {
            for (int i = 0; i < pairs / ROUNDS; i++) {
                long begin = System.nanoTime();
                step();
                millis.add((System.nanoTime() - begin) / 1e6);
            }
            Use before = meter.read();
            double rate = operationsPerSecond();
            perSecond.add(rate);
            costs.add(Cost.between(before, meter.read(), rate));
            megabytes.add(largeMegabytesPerSecond(protocol, run));
        }

        private void step() {
            var pass = protocol.submit(run, 2L * steps + 1, pass(small(), false));
            var step = protocol.submit(run, 2L * steps++ + 2, new Operation.OptimStep(Optional.empty()));
            mustBeDone(pass.toCompletableFuture().join());
            mustBeDone(step.toCompletableFuture().join());
        }

        private double operationsPerSecond() {
            var done = new AtomicLong();
            long begin = System.nanoTime();
            List<CompletableFuture<Long>> last = many.stream()
                    .map(id -> loop(id, seq, begin + seconds * 1_000_000_000L, done)).toList();
            seq = last.stream().mapToLong(CompletableFuture::join).max().orElseThrow();
            return done.get() / ((System.nanoTime() - begin) * 1e-9);
        }

        /// One `forward` after another; the number of the next.
        private CompletableFuture<Long> loop(String id, long next, long end, AtomicLong done) {
            if (System.nanoTime() > end) return CompletableFuture.completedFuture(next);
            return protocol.submit(id, next, pass(small(), true)).toCompletableFuture()
                    .thenComposeAsync(refusal -> {
                        mustBeDone(refusal);
                        done.incrementAndGet();
                        return loop(id, next + 1, end, done);
                    });
        }

        double operations() {
            return Percentiles.of(perSecond).median();
        }

        ObjectNode json() {
            Percentiles all = Percentiles.of(millis);
            return Report.JSON.createObjectNode().put("p50_ms", Report.three(all.median()))
                    .put("p99_ms", Report.three(all.at(99)))
                    .put("operations_s", Report.round(operations()))
                    .put("engine_share", Report.two(median(Cost::engineShare)))
                    .put("server_cpu_ms", Report.three(median(Cost::serverMillis)))
                    .put("client_cpu_ms", Report.three(median(Cost::clientMillis)))
                    .put("large_mb_s", Report.round(Percentiles.of(megabytes).median()));
        }

        private double median(ToDoubleFunction<Cost> part) {
            return Percentiles.of(costs.stream().mapToDouble(part).boxed().toList()).median();
        }

        @Override public void close() {
            protocol.close();
        }
    }

    /// What has been used since the processes began.
    ///
    /// @param serverSeconds of processors, by the server
    /// @param clientSeconds of processors, by this process
    /// @param engineSeconds in which the engine was in a pass
    /// @param at when this was read, in seconds
    private record Use(double serverSeconds, double clientSeconds, double engineSeconds, double at) {}

    /// What operations took.
    ///
    /// @param serverMillis of processors for an operation, in the server
    /// @param clientMillis of processors for an operation, in this process
    /// @param engineShare of the time in which the engine was in a pass, 0 to 1
    private record Cost(double serverMillis, double clientMillis, double engineShare) {
        /// @param rate operations per second between the two readings
        static Cost between(Use before, Use after, double rate) {
            double seconds = after.at - before.at;
            double millis = 1e3 / (rate * seconds);
            return new Cost(millis * (after.serverSeconds - before.serverSeconds),
                    millis * (after.clientSeconds - before.clientSeconds),
                    (after.engineSeconds - before.engineSeconds) / seconds);
        }
    }

    /// Reads what the server and this process have used.
    private static final class Meter implements AutoCloseable {
        private static final String PASS_SECONDS = "bios_engine_pass_seconds_sum";
        private final HttpClient client = HttpClient.newHttpClient();
        private final HttpRequest metrics;
        private final ProcessHandle server;

        Meter(String url, long server) {
            metrics = HttpRequest.newBuilder(URI.create(url + "/metrics")).build();
            this.server = ProcessHandle.of(server).orElseThrow();
        }

        Use read() {
            try {
                double passes = client.send(metrics, HttpResponse.BodyHandlers.ofString()).body().lines()
                        .filter(line -> line.startsWith(PASS_SECONDS)).mapToDouble(line ->
                                Double.parseDouble(line.substring(line.lastIndexOf(' ')))).sum();
                return new Use(cpu(server), cpu(ProcessHandle.current()), passes, System.nanoTime() / 1e9);
            } catch (IOException failed) {
                throw new CommandFailed("the server's metrics cannot be read: " + failed.getMessage());
            } catch (InterruptedException interrupted) {
                throw new CommandFailed("interrupted");
            }
        }

        private static double cpu(ProcessHandle process) {
            return process.info().totalCpuDuration().orElse(Duration.ZERO).toNanos() / 1e9;
        }

        @Override public void close() {
            client.close();
        }
    }

    private static double largeMegabytesPerSecond(Protocol protocol, String run) {
        List<Datum> data = batch(LARGE_SEQUENCES, LARGE_TOKENS);
        data.add(new Datum(new int[] {Integer.MAX_VALUE}, Map.of("target_tokens", TensorData.of(1L))));
        Operation.ForwardBackward batch = pass(data, false);
        long bytes = data.stream().mapToLong(d -> 4L * d.tokens().length
                + d.lossInputs().values().stream().mapToLong(t -> t.data().length).sum()).sum();
        long begin = 0;
        for (int i = 0; i <= LARGE_TIMES; i++) { // the first one is not measured
            if (i == 1) begin = System.nanoTime();
            if (protocol.submit(run, 1_000_000, batch).toCompletableFuture().join().isEmpty())
                throw new CommandFailed("a batch with an unknown token was accepted");
        }
        return LARGE_TIMES * bytes / 1e6 / ((System.nanoTime() - begin) * 1e-9);
    }

    /// A sequence of a few tokens.
    static List<Datum> small() {
        return batch(1, TOKENS);
    }

    /// With cross-entropy.
    static Operation.ForwardBackward pass(List<Datum> data, boolean forwardOnly) {
        return new Operation.ForwardBackward(data, LossFunction.CROSS_ENTROPY, Map.of(), forwardOnly);
    }

    private static void mustBeDone(Optional<String> refusal) {
        refusal.ifPresent(why -> {
            throw new CommandFailed("an operation was refused: " + why);
        });
    }

    /// Equal sequences.
    private static List<Datum> batch(int sequences, int length) {
        var tokens = new int[length];
        for (int i = 0; i < length; i++) tokens[i] = 7 + i % 100;
        var weights = new float[length];
        Arrays.fill(weights, 1);
        var datum = new Datum(tokens, Map.of("target_tokens", TensorData.of(
                LongStream.range(0, length).map(i -> 7 + i % 100).toArray()), "weights",
                TensorData.of(weights)));
        return new ArrayList<>(Collections.nCopies(sequences, datum));
    }

    private static final class ActorProtocol implements Protocol {
        private final BiosClient client;

        ActorProtocol(String gateway) {
            client = BiosClient.connect(ClientSettings.of(gateway));
            client.request(new Request.OpenSession(client.session(), List.of(), "{}", "bench"))
                    .toCompletableFuture().join();
        }

        @Override public CompletionStage<String> createRun(long number) {
            return client.request(new Request.CreateRun(client.session(), number, MODEL,
                    Optional.of(Request.Adapter.ofRank(8)), "{}")).thenApply(answer ->
                            ((Answer.Submitted) answer).run().orElseThrow());
        }

        @Override public CompletionStage<Optional<String>> submit(String run, long seq,
                Operation operation) {
            return client.request(new Request.Submit(run, seq, operation)).thenCompose(answer ->
                    answer instanceof Answer.Submitted(var request, _) ? result(request)
                            : CompletableFuture.completedStage(answer)).thenApply(answer ->
                            answer instanceof Answer.Evaluated || answer instanceof Answer.Stepped
                                    ? Optional.<String>empty() : Optional.of(answer.toString()))
                    .exceptionally(failed -> Optional.of(failed.getMessage()));
        }

        private CompletionStage<Answer> result(String request) {
            return client.request(new Request.Retrieve(request)).thenCompose(answer ->
                    answer instanceof Answer.Pending ? result(request)
                            : CompletableFuture.completedStage(answer));
        }

        @Override public void close() {
            client.close();
        }
    }

    /// The calls of a client over HTTP, with a session of its own.
    static final class HttpProtocol implements Protocol {
        private final HttpClient client;
        private final String url;
        private final String session = UUID.randomUUID().toString();
        /// The newest submission of each run: HTTP keeps no order of two requests under way, so the next one
        /// is sent when it is answered, as the Python packages do.
        private final Map<String, CompletionStage<JsonNode>> submitted = new ConcurrentHashMap<>();

        HttpProtocol(String url) {
            this(HttpClient.newHttpClient(), url);
        }

        /// @param client is closed with this
        HttpProtocol(HttpClient client, String url) {
            this.client = client;
            this.url = url;
            api("create_session", Report.JSON.createObjectNode().put("session_id", session))
                    .toCompletableFuture().join();
        }

        @Override public CompletionStage<String> createRun(long number) {
            ObjectNode body = Report.JSON.createObjectNode().put("session_id", session)
                    .put("model_seq_id", number).put("base_model", MODEL);
            body.putObject("lora_config").put("rank", 8);
            return api("create_model", body).thenApply(answer -> answer.get("model_id").asText());
        }

        @Override public CompletionStage<Optional<String>> submit(String run, long seq,
                Operation operation) {
            return answer(run, seq, operation).thenApply(answer ->
                    answer.has("error") ? Optional.of(answer.toString()) : Optional.empty());
        }

        private CompletionStage<JsonNode> answer(String run, long seq, Operation operation) {
            ObjectNode body = Report.JSON.createObjectNode().put("model_id", run).put("seq_id", seq);
            String call = "optim_step";
            if (operation instanceof Operation.ForwardBackward pass) {
                call = pass.forwardOnly() ? "forward" : "forward_backward";
                fill(body.putObject(call + "_input"), pass);
            }
            return call(call, body);
        }

        /// Submits an operation; its result, or an answer with `error`.
        CompletionStage<JsonNode> call(String call, ObjectNode body) {
            CompletionStage<JsonNode> none = CompletableFuture.completedStage(null);
            CompletionStage<JsonNode> submission = submitted.compute(body.path("model_id").asText(),
                    (_, last) -> (last == null ? none : last).handle((_, _) -> null)
                            .thenCompose(_ -> api(call, body)));
            return submission.thenCompose(answer -> answer.has("request_id") && !answer.has("error")
                    ? result(answer.get("request_id").asText()) : CompletableFuture.completedStage(answer));
        }

        /// As the Python package writes it: packed, as base64.
        private static void fill(ObjectNode input, Operation.ForwardBackward pass) {
            input.put("loss_fn", pass.loss().wireName());
            var data = input.putArray("data");
            for (Datum datum : pass.data()) {
                ObjectNode item = data.addObject();
                ByteBuffer tokens = ByteBuffer.allocate(4 * datum.tokens().length)
                        .order(ByteOrder.LITTLE_ENDIAN);
                tokens.asIntBuffer().put(datum.tokens());
                item.putObject("model_input").put("tokens_base64", base64(tokens.array()));
                ObjectNode inputs = item.putObject("loss_fn_inputs");
                datum.lossInputs().forEach((name, tensor) -> inputs.putObject(name)
                        .put("dtype", tensor.dtype().name().toLowerCase(java.util.Locale.ROOT))
                        .put("data_base64", base64(tensor.data())).putArray("shape")
                        .add(tensor.elements()));
            }
        }

        private static String base64(byte[] bytes) {
            return Base64.getEncoder().encodeToString(bytes);
        }

        private CompletionStage<JsonNode> result(String request) {
            return api("retrieve_future", Report.JSON.createObjectNode().put("request_id", request))
                    .thenCompose(answer -> answer.path("type").asText().equals("try_again")
                            ? result(request) : CompletableFuture.completedStage(answer));
        }

        private CompletionStage<JsonNode> api(String call, ObjectNode body) {
            return post("/api/v1/" + call, body);
        }

        /// Posts a body; the answer's.
        CompletionStage<JsonNode> post(String path, ObjectNode body) {
            return client.sendAsync(HttpRequest.newBuilder(URI.create(url + path))
                    .header("Content-Type", "application/json")
                    .header("Accept", "application/vnd.bios+json, application/json")
                    .POST(HttpRequest.BodyPublishers.ofByteArray(bytes(body))).build(),
                    HttpResponse.BodyHandlers.ofByteArray()).thenApply(response -> json(response.body()));
        }

        private static byte[] bytes(ObjectNode body) {
            try {
                return Report.JSON.writeValueAsBytes(body);
            } catch (IOException impossible) {
                throw new CommandFailed(impossible.getMessage());
            }
        }

        private static JsonNode json(byte[] body) {
            try {
                return Report.JSON.readTree(body);
            } catch (IOException wrong) {
                throw new CommandFailed("the server's answer is no JSON: " + wrong.getMessage());
            }
        }

        @Override public void close() {
            client.close();
        }
    }
}
