package bios.node;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Supplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// `bios up --models` on a folder of models of which many cannot be served, as a user starts it.
final class ModelFoldersIT {
    private static final Path TINY = root().resolve("deploy/models/bios-tiny");
    private static final ObjectMapper JSON = new ObjectMapper();

    @TempDir Path folder;
    private final HttpClient client = HttpClient.newHttpClient();
    private final List<Process> processes = new ArrayList<>();
    private String url;

    @AfterEach void stop() {
        processes.forEach(Process::destroyForcibly);
    }

    @Test void whatCanBeServedIsServedAndTheRestIsListedAndTriedAgain() throws Exception {
        Path models = Files.createDirectories(folder.resolve("models"));
        copy(models.resolve("good"));
        Files.createDirectories(models.resolve("good/onnx"));
        Files.writeString(models.resolve("good/onnx/config.json"), "{}");
        Files.writeString(copy(models.resolve("foreign")).resolve("config.json"),
                "{\"architectures\": [\"BertModel\"]}");
        Path part = copy(models.resolve("part"));
        byte[] whole = Files.readAllBytes(part.resolve("model.safetensors"));
        Files.write(part.resolve("model.safetensors"), Arrays.copyOf(whole, whole.length / 3));
        Files.writeString(copy(models.resolve("pointer")).resolve("model.safetensors"),
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
        copy(models.resolve("with space"));
        copy(models.resolve("other/good"));
        Files.createSymbolicLink(models.resolve("linked"), copy(folder.resolve("elsewhere/l")));
        Files.createSymbolicLink(models.resolve("loop"), models);
        copy(models.resolve("models--org--cached/snapshots/abc"));
        Files.createDirectories(models.resolve("models--org--cached/refs"));
        Files.writeString(models.resolve("models--org--cached/refs/main"), "abc");
        up(models);
        assertEquals(List.of("good", "linked", "org/cached"), served());
        Map<String, String> reasons = reasons();
        assertTrue(reasons.get("foreign").contains("architecture 'BertModel' is not served"),
                reasons::toString);
        assertTrue(reasons.get("part").contains("cut off"), reasons::toString);
        assertTrue(reasons.get("pointer").contains("git lfs pull"), reasons::toString);
        assertTrue(reasons.get("with space").contains("--model NAME=DIR"), reasons::toString);
        assertTrue(reasons.get("other/good").contains("'good-...'"), reasons::toString);
        String listed = bios("models", "--url", url);
        assertTrue(listed.contains("org/cached") && listed.contains("not served: pointer: "), listed);
        assertTrue(get("/metrics").contains("bios_engine_models{state=\"served\"} 3"));

        Files.write(part.resolve("model.safetensors"), whole);
        until(() -> served().contains("part"));
        assertTrue(created("part"), "a run of a model that came later");
        Files.write(part.resolve("model.safetensors"), new byte[0]);
        until(() -> !served().contains("part"));
        assertTrue(reasons().get("part").contains("has 0 bytes"), reasons()::toString);
        Files.write(part.resolve("model.safetensors"), whole);
        until(() -> served().contains("part"));
        assertTrue(created("part"), "a run of a model that is back");
    }

    @Test void aRunWaitsForTheWeightsThatItWasCreatedOn() throws Exception {
        Path models = Files.createDirectories(folder.resolve("models"));
        Path weights = copy(models.resolve("good")).resolve("model.safetensors");
        byte[] original = Files.readAllBytes(weights);
        byte[] others = original.clone();
        others[others.length - 1] ^= 1;
        up(models);
        String run = create("good").get("model_id").asText();
        restart(models, weights, others);
        JsonNode saved = post("save_weights", JSON.createObjectNode().put("model_id", run).put("seq_id", 1)
                .put("path", "a").toString());
        String future =
                JSON.createObjectNode().put("request_id", saved.get("request_id").asText()).toString();
        JsonNode waiting = post("retrieve_future", future);
        for (int i = 0; i < 10 && !waiting.toString().contains("differ"); i++)
            waiting = post("retrieve_future", future);
        assertTrue(waiting.toString().contains("its weights differ"), waiting::toString);
        assertTrue(!waiting.has("error"), waiting::toString);
        restart(models, weights, original);
        JsonNode done = post("retrieve_future", future);
        for (int i = 0; i < 30 && !done.has("path"); i++) done = post("retrieve_future", future);
        assertTrue(done.has("path"), done::toString);
    }

    private void restart(Path models, Path weights, byte[] content) throws IOException, InterruptedException {
        processes.getLast().destroyForcibly().waitFor();
        Files.write(weights, content);
        up(models);
    }

    @Test void aModelWithANameOfItsOwnStopsTheStart() throws Exception {
        Path bad = copy(folder.resolve("bad"));
        Files.writeString(bad.resolve("model.safetensors"), "<!DOCTYPE html>");
        String refused = bios("up", "--port", "0", "--data", folder.resolve("data").toString(), "--model",
                "x=" + bad, "--model", "tiny=" + TINY);
        assertTrue(refused.contains("is a web page"), refused);
    }

    private void up(Path models) throws IOException, InterruptedException {
        Path settings = Files.writeString(folder.resolve("bios.conf"),
                "bios.engine.model-check-interval = 200ms\nbios.engine.memory-bytes = 1 GiB\n"
                + "bios.fleet.describe-interval = 200ms\nbios.gateway.long-poll = 1s");
        Path log = folder.resolve("up.log");
        start(log, "up", "--port", "0", "--data", folder.resolve("data").toString(), "--models",
                models.toString(), "--config", settings.toString());
        Optional<String> ready = Optional.empty();
        for (int i = 0; i < 1200 && ready.isEmpty(); i++) {
            assertTrue(processes.getLast().isAlive(), () -> read(log));
            Thread.sleep(100); // edge: waits for another process
            ready = read(log).lines().filter(l -> l.startsWith("bios ready on ")).findFirst();
        }
        url = ready.orElseThrow(() -> new AssertionError(read(log))).substring("bios ready on ".length());
    }

    private Process start(Path log, String... arguments) throws IOException {
        String classes =
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
        List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin/java")
                .toString(), "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
                "-Xmx512m", "-cp", classes, "bios.Main"));
        command.addAll(List.of(arguments));
        processes.add(new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log.toFile())
                .start());
        return processes.getLast();
    }

    private String bios(String... arguments) throws IOException, InterruptedException {
        Path log = folder.resolve("command.log");
        start(log, arguments).waitFor();
        return read(log);
    }

    private static String read(Path log) {
        try {
            return Files.readString(log);
        } catch (IOException unreadable) {
            return unreadable.toString();
        }
    }

    private static Path copy(Path to) throws IOException {
        Files.createDirectories(to);
        for (String file : List.of("config.json", "model.safetensors"))
            Files.copy(TINY.resolve(file), to.resolve(file));
        return to;
    }

    private void until(Supplier<Boolean> done) throws InterruptedException {
        for (int i = 0; i < 600 && !done.get(); i++) Thread.sleep(100); // edge: waits for another process
        assertTrue(done.get(), () -> served() + " " + reasons() + "\n" + read(folder.resolve("up.log")));
    }

    private String get(String path) {
        return send(HttpRequest.newBuilder(URI.create(url + path)).build());
    }

    private JsonNode capabilities() {
        return json(get("/api/v1/get_server_capabilities"));
    }

    private List<String> served() {
        List<String> names = new ArrayList<>();
        capabilities().get("supported_models").forEach(m -> names.add(m.get("model_name").asText()));
        return names;
    }

    private Map<String, String> reasons() {
        Map<String, String> reasons = new TreeMap<>();
        capabilities().get("unserved_models")
                .forEach(m -> reasons.put(m.get("model_name").asText(), m.get("reason").asText()));
        return reasons;
    }

    private boolean created(String model) {
        return create(model).has("model_id");
    }

    private JsonNode create(String model) {
        String session = post("create_session", "{}").get("session_id").asText();
        JsonNode accepted = post("create_model", JSON.createObjectNode().put("session_id", session)
                .put("model_seq_id", 0).put("base_model", model).toString());
        JsonNode answer = JSON.createObjectNode();
        for (int i = 0; i < 30 && !answer.has("model_id"); i++)
            answer = post("retrieve_future", JSON.createObjectNode()
                    .put("request_id", accepted.path("request_id").asText()).toString());
        return answer;
    }

    private JsonNode post(String call, String body) {
        return json(send(HttpRequest.newBuilder(URI.create(url + "/api/v1/" + call))
                .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body))
                .build()));
    }

    private String send(HttpRequest request) {
        try {
            return client.send(request, HttpResponse.BodyHandlers.ofString()).body();
        } catch (IOException | InterruptedException failed) {
            throw new AssertionError(read(folder.resolve("up.log")), failed);
        }
    }

    private static JsonNode json(String text) {
        try {
            return JSON.readTree(text);
        } catch (IOException failed) {
            throw new AssertionError(text, failed);
        }
    }

    private static Path root() {
        Path folder = Path.of("").toAbsolutePath();
        while (!Files.exists(folder.resolve("mvnw"))) folder = folder.getParent();
        return folder;
    }
}
