package bios.node;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.client.Batch;
import bios.client.BiosClient;
import bios.client.ClientSettings;
import bios.client.TrainingRun;
import bios.example.ReinforcementLearning;
import bios.example.SupervisedTraining;
import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SamplingParams;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// JVM programs against `bios up`, as a user starts both; and what becomes of them when the service is
/// killed.
final class JavaClientIT {
    private static final String MODEL = "bios-tiny";
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final AdamParams ADAM = new AdamParams(1e-3, 0.9, 0.95, 1e-8, 0, 1);

    @TempDir Path folder;
    private final List<Process> processes = new ArrayList<>();
    private int port;
    private String url;

    @BeforeEach void up() throws Exception {
        if (port == 0) try (var socket = new ServerSocket(0)) {
            port = socket.getLocalPort();
        }
        Path settings = Files.writeString(folder.resolve("bios.conf"), "bios.gateway.actors { enabled = on,"
                + " port = " + port + " }\nbios.engine.memory-bytes = 1 GiB");
        Path log = folder.resolve("up" + processes.size() + ".log");
        start(log, "bios.Main", "up", "--port", "0", "--data", folder.resolve("data").toString(), "--model",
                MODEL + "=" + root().resolve("deploy/models/bios-tiny"), "--config", settings.toString());
        url = await(log, "bios ready on (\\S+)");
    }

    @AfterEach void stop() {
        processes.forEach(Process::destroyForcibly);
    }

    private String await(Path log, String pattern) throws Exception {
        for (int i = 0; i < 1200; i++) {
            var found = Pattern.compile(pattern).matcher(Files.readString(log));
            if (found.find()) return found.group(1);
            assertTrue(processes.getLast().isAlive(), () -> read(log));
            Thread.sleep(100); // edge: waits for another process
        }
        throw new AssertionError(read(log));
    }

    private Process start(Path log, String... mainAndArguments) throws IOException {
        String classes =
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
        List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin/java")
                .toString(), "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
                "-Xmx512m", "-cp", classes));
        command.addAll(List.of(mainAndArguments));
        processes.add(new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log.toFile())
                .start());
        return processes.getLast();
    }

    private static String read(Path log) {
        try {
            return Files.readString(log);
        } catch (IOException unreadable) {
            return unreadable.toString();
        }
    }

    private static Path root() {
        Path at = Path.of("").toAbsolutePath();
        while (!Files.exists(at.resolve("mvnw"))) at = at.getParent();
        return at;
    }

    private static <T> T get(CompletionStage<T> stage) throws Exception {
        return stage.toCompletableFuture().get(120, TimeUnit.SECONDS);
    }

    private String program(Class<?> program, String... arguments) throws Exception {
        Path log = folder.resolve(program.getSimpleName() + ".log");
        List<String> all = new ArrayList<>(List.of(program.getName(), "127.0.0.1:" + port, MODEL));
        all.addAll(List.of(arguments));
        Process process = start(log, all.toArray(String[]::new));
        assertTrue(process.waitFor(180, TimeUnit.SECONDS), () -> read(log));
        assertEquals(0, process.exitValue(), () -> read(log));
        return read(log);
    }

    @Test void theProgramsOfTheGuideRun() throws Exception {
        Path text = Files.writeString(folder.resolve("text.txt"),
                "A line to learn.\nAnother line to learn.\n");
        String trained = program(SupervisedTraining.class, text.toString(), "6");
        double first = loss(trained, 1);
        double last = loss(trained, 6);
        assertTrue(last < first, trained);
        assertTrue(trained.contains("saved bios://bios-tiny-"), trained);
        String learned = program(ReinforcementLearning.class, "2");
        assertTrue(learned.contains("round 2: mean reward ") && learned.contains("done"), learned);
    }

    private static double loss(String output, int step) {
        var found = Pattern.compile("step " + step + " of \\d+: loss ([0-9.]+)").matcher(output);
        assertTrue(found.find(), output);
        return Double.parseDouble(found.group(1));
    }

    @Test void aRunHasTheSameBitsOverBothDoors() throws Exception {
        var client = BiosClient.connect(ClientSettings.of("127.0.0.1:" + port));
        int[] tokens = {5, 9, 3, 7, 11};
        TrainingRun own = get(client.createRun(MODEL, Request.Adapter.ofRank(4).withSeed(7)));
        Answer.Evaluated first = get(own.forwardBackward(Batch.ofTexts(List.of(tokens))));
        get(own.optimStep(ADAM));
        Answer.Evaluated second = get(own.forward(Batch.ofTexts(List.of(tokens))));

        String session = post("create_session", "{}").get("session_id").asText();
        String run = post("create_model", "{'session_id': '" + session + "', 'model_seq_id': 1,"
                + " 'base_model': '" + MODEL + "', 'lora_config': {'rank': 4, 'alpha': 32, 'seed': 7}}")
                .get("model_id").asText();
        String batch = "{'loss_fn': 'cross_entropy', 'data': [{'model_input': {'chunks': [{'tokens':"
                + " [5, 9, 3, 7]}]}, 'loss_fn_inputs': {'target_tokens': {'dtype': 'int64', 'data':"
                + " [9, 3, 7, 11]}, 'weights': {'dtype': 'float32', 'data': [1, 1, 1, 1]}}}]}}";
        JsonNode overHttp = result(post("forward_backward", "{'model_id': '" + run
                + "', 'seq_id': 1, 'forward_backward_input': " + batch));
        assertArrayEquals(logprobs(overHttp), first.logprobs().getFirst());
        assertEquals(overHttp.get("metrics").get("loss:sum").asDouble(), first.loss());
        result(post("optim_step", "{'model_id': '" + run + "', 'seq_id': 2, 'adam_params': {'learning_rate':"
                + " 0.001, 'beta1': 0.9, 'beta2': 0.95, 'eps': 1e-8, 'grad_clip_norm': 1}}"));
        assertArrayEquals(logprobs(result(post("forward", "{'model_id': '" + run
                + "', 'seq_id': 3, 'forward_input': " + batch))), second.logprobs().getFirst());
        client.close();
        get(client.closed());
    }

    @Test void aClientOutlivesTheServiceAndNothingIsAppliedTwice() throws Exception {
        Batch batch = Batch.ofTexts(List.of(new int[] {5, 9, 3, 7, 11, 2, 4}));
        var settings = ClientSettings.of("127.0.0.1:" + port).withSilence(Duration.ofSeconds(3));
        var client = BiosClient.connect(settings);
        TrainingRun calm = get(client.createRun(MODEL, Request.Adapter.ofRank(4).withSeed(7)));
        List<float[]> undisturbed = trained(calm, batch, false);
        TrainingRun disturbed = get(client.createRun(MODEL, Request.Adapter.ofRank(4).withSeed(7)));
        List<float[]> again = trained(disturbed, batch, true);
        for (int i = 0; i < undisturbed.size(); i++) assertArrayEquals(undisturbed.get(i), again.get(i));
        assertEquals(12, get(disturbed.describe()).step());
        var params = new SamplingParams(Optional.of(6), Optional.of(3L), List.of(), List.of(), 1, -1, 1);
        SampleResult before = get(get(calm.sampler()).sample(new int[] {5, 9}, params, 1));
        SampleResult after = get(get(disturbed.sampler()).sample(new int[] {5, 9}, params, 1));
        assertArrayEquals(before.sequences().getFirst().tokens(), after.sequences().getFirst().tokens());

        // Another process comes back with the numbers of this one.
        client.close();
        var returned = BiosClient.connect(settings);
        TrainingRun same = returned.run(disturbed.id(), 1);
        assertArrayEquals(undisturbed.get(0), get(same.forwardBackward(batch)).logprobs().getFirst());
        assertEquals(12, get(same.describe()).step());
        returned.close();
    }

    /// The log-probabilities of twelve steps.
    ///
    /// @param kill whether the service is killed in between
    private List<float[]> trained(TrainingRun run, Batch batch, boolean kill) throws Exception {
        List<CompletionStage<Answer.Evaluated>> passes = new ArrayList<>();
        List<CompletionStage<Answer.Stepped>> steps = new ArrayList<>();
        for (int i = 0; i < 12; i++) {
            passes.add(run.forwardBackward(batch));
            steps.add(run.optimStep(ADAM));
            if (i == 4) get(passes.get(2));
            if (i == 4 && kill) {
                processes.getLast().destroyForcibly().waitFor();
                up();
            }
        }
        List<float[]> all = new ArrayList<>();
        for (var pass : passes) all.add(get(pass).logprobs().getFirst());
        for (int i = 0; i < 12; i++) assertEquals(i + 1, get(steps.get(i)).step());
        return all;
    }

    private static float[] logprobs(JsonNode result) {
        JsonNode data = result.get("loss_fn_outputs").get(0).get("logprobs").get("data");
        float[] values = new float[data.size()];
        for (int i = 0; i < values.length; i++) values[i] = (float) data.get(i).asDouble();
        return values;
    }

    private JsonNode result(JsonNode future) throws Exception {
        JsonNode answer = JSON.createObjectNode();
        for (int i = 0; i < 30 && answer.path("type").asText("try_again").equals("try_again"); i++)
            answer = post("retrieve_future", "{'request_id': '" + future.get("request_id").asText() + "'}");
        return answer;
    }

    private JsonNode post(String call, String body) throws Exception {
        try (HttpClient http = HttpClient.newHttpClient()) {
            return JSON.readTree(http.send(HttpRequest.newBuilder(URI.create(url + "/api/v1/" + call))
                    .header("Content-Type", "application/json")
                    .POST(HttpRequest.BodyPublishers.ofString(body.replace('\'', '"'))).build(),
                    HttpResponse.BodyHandlers.ofString()).body());
        }
    }
}
