package bios.node;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.UnaryOperator;

/// A process of [FaultyNode] and its HTTP client. Processes of the same folder follow each other on the same
/// data.
final class FaultyProcess implements AutoCloseable {
    static final ObjectMapper JSON = new ObjectMapper();
    private static final long END_SECONDS = 600;

    private final Process process;
    private final Path log;
    private final HttpClient client = HttpClient.newHttpClient();

    /// @param folder of the data, the logs and the files of faults
    /// @param name of the log
    /// @param settings of `bios up`
    FaultyProcess(Path folder, String name, String settings) throws IOException {
        log = folder.resolve(name + ".log");
        String classes = System.getProperty("surefire.test.class.path",
                System.getProperty("java.class.path"));
        process = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin/java").toString(),
                "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow", "-Xmx512m",
                "-cp", classes, FaultyNode.class.getName(), folder.resolve("data").toString(),
                root().resolve("deploy/models/bios-tiny").toString(), folder.toString(), settings)
                .redirectErrorStream(true).redirectOutput(log.toFile()).start();
    }

    /// Waits until the service is ready.
    ///
    /// @return its URL
    String ready() throws InterruptedException {
        await(() -> log().lines().anyMatch(l -> l.startsWith("ready ")));
        return log().lines().filter(l -> l.startsWith("ready ")).findFirst().orElseThrow()
                .substring("ready ".length());
    }

    /// Waits for something that the living process does.
    void await(BooleanSupplier done) throws InterruptedException {
        for (int i = 0; i < 6000 && !done.getAsBoolean(); i++) {
            assertTrue(process.isAlive(), this::log);
            Thread.sleep(100); // edge: waits for another process
        }
        assertTrue(done.getAsBoolean(), this::log);
    }

    /// Waits until the process has ended by itself, with this exit status.
    void awaitEnd(int status) throws InterruptedException {
        assertTrue(process.waitFor(END_SECONDS, TimeUnit.SECONDS), this::log);
        assertEquals(status, process.exitValue(), this::log);
    }

    /// Sends SIGTERM.
    void terminate() {
        process.destroy();
    }

    /// Sends SIGKILL and waits for the end.
    void kill() throws InterruptedException {
        process.destroyForcibly().waitFor();
    }

    /// Creates a run of the model with this seed.
    ///
    /// @return its id
    String createRun(int seed) throws InterruptedException {
        JsonNode session = post("create_session", JSON.createObjectNode()).orElseThrow();
        ObjectNode create = JSON.createObjectNode().put("session_id", session.get("session_id").asText())
                .put("model_seq_id", 0).put("base_model", "bios/tiny");
        create.putObject("lora_config").put("rank", 4).put("seed", seed);
        return result(post("create_model", create).orElseThrow()).get("model_id").asText();
    }

    /// Waits for the result or the error of an accepted request.
    JsonNode result(JsonNode accepted) throws InterruptedException {
        Optional<JsonNode> answer = Optional.empty();
        for (int i = 0; i < 600 && answer.filter(FaultyProcess::isFinal).isEmpty(); i++)
            answer = poll(accepted);
        return answer.filter(FaultyProcess::isFinal).orElseThrow(() -> new AssertionError(log()));
    }

    private static boolean isFinal(JsonNode answer) {
        return !answer.path("type").asText().equals("try_again");
    }

    /// Asks once for the result of an accepted request; empty if the process ended meanwhile.
    Optional<JsonNode> poll(JsonNode accepted) throws InterruptedException {
        return post("retrieve_future", JSON.createObjectNode().put("request_id",
                accepted.get("request_id").asText()));
    }

    /// The answer; empty if the process ended meanwhile.
    Optional<JsonNode> post(String call, JsonNode body) throws InterruptedException {
        return send(call, builder -> builder.header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body.toString())));
    }

    /// The answer to a GET.
    JsonNode get(String call) throws InterruptedException {
        return send(call, HttpRequest.Builder::GET).orElseThrow();
    }

    private Optional<JsonNode> send(String call, UnaryOperator<HttpRequest.Builder> kind)
            throws InterruptedException {
        var request = kind.apply(HttpRequest.newBuilder(URI.create(ready() + "/api/v1/" + call))).build();
        try {
            return Optional.of(JSON.readTree(client.send(request,
                    HttpResponse.BodyHandlers.ofString()).body()));
        } catch (IOException _) {
            return Optional.empty();
        }
    }

    String log() {
        try {
            return Files.readString(log);
        } catch (IOException unreadable) {
            return unreadable.toString();
        }
    }

    @Override public void close() {
        process.destroyForcibly();
    }

    private static Path root() {
        Path folder = Path.of("").toAbsolutePath();
        while (!Files.exists(folder.resolve("mvnw"))) folder = folder.getParent();
        return folder;
    }
}
