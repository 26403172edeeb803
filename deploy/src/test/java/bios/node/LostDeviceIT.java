package bios.node;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
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
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A real process whose device is lost: it ends with its status, blames no operation, and started again it
/// executes what it had accepted.
final class LostDeviceIT {
    private static final Path ROOT = root();
    private static final ObjectMapper JSON = new ObjectMapper();

    @TempDir Path folder;

    private final HttpClient client = HttpClient.newHttpClient();

    @Test void itEndsWithItsStatusAndItsRunsGoOnAfterTheRestart() throws Exception {
        Path lost = folder.resolve("lost");
        String save;
        try (Child child = new Child("first", lost)) {
            String url = child.ready();
            JsonNode session = post(url, "create_session", "{}").orElseThrow();
            String create = JSON.createObjectNode().put("session_id", session.get("session_id").asText())
                    .put("model_seq_id", 0).put("base_model", "bios/tiny").toString();
            JsonNode created = answer(url, "create_model", create, "model_id").orElseThrow();
            save = JSON.createObjectNode().put("model_id", created.get("model_id").asText()).put("seq_id", 1)
                    .put("path", "here").toString();
            Files.createFile(lost);
            JsonNode accepted = post(url, "save_weights", save).orElseThrow();
            Optional<JsonNode> answer = post(url, "retrieve_future", future(accepted));
            assertFalse(answer.filter(a -> a.has("error")).isPresent(), answer::toString);
            assertTrue(child.process.waitFor(60, TimeUnit.SECONDS), child::log);
            assertEquals(75, child.process.exitValue(), child::log);
            assertTrue(child.log().contains("the device is lost: fell off the bus"), child::log);
        }
        Files.delete(lost);
        try (Child child = new Child("second", lost)) {
            Optional<JsonNode> answer = answer(child.ready(), "save_weights", save, "path");
            assertTrue(answer.isPresent(), child::log);
        }
    }

    /// The result of a call, which has this field.
    private Optional<JsonNode> answer(String url, String call, String body, String field)
            throws InterruptedException {
        JsonNode accepted = post(url, call, body).orElseThrow();
        Optional<JsonNode> answer = Optional.empty();
        for (int i = 0; i < 60 && answer.isEmpty(); i++)
            answer = post(url, "retrieve_future", future(accepted)).filter(a -> a.has(field));
        return answer;
    }

    private static String future(JsonNode accepted) {
        return JSON.createObjectNode().put("request_id", accepted.get("request_id").asText()).toString();
    }

    /// The answer, or nothing when the process ended meanwhile.
    private Optional<JsonNode> post(String url, String call, String body) throws InterruptedException {
        var request = HttpRequest.newBuilder(URI.create(url + "/api/v1/" + call))
                .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body))
                        .build();
        try {
            return Optional.of(JSON.readTree(client.send(request,
                    HttpResponse.BodyHandlers.ofString()).body()));
        } catch (IOException _) {
            return Optional.empty();
        }
    }

    /// A process of [LosingNode].
    private final class Child implements AutoCloseable {
        final Process process;
        private final Path log;

        Child(String name, Path lost) throws IOException {
            log = folder.resolve(name + ".log");
            String classes = System.getProperty("surefire.test.class.path",
                    System.getProperty("java.class.path"));
            process = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin/java").toString(),
                    "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow", "-Xmx512m",
                    "-cp", classes, LosingNode.class.getName(), folder.resolve("data").toString(),
                    ROOT.resolve("deploy/models/bios-tiny").toString(), lost.toString())
                    .redirectErrorStream(true).redirectOutput(log.toFile()).start();
        }

        String ready() throws InterruptedException {
            for (int i = 0; i < 1200; i++) {
                Optional<String> line = log().lines().filter(l -> l.startsWith("ready ")).findFirst();
                if (line.isPresent()) return line.get().substring("ready ".length());
                assertTrue(process.isAlive(), this::log);
                Thread.sleep(100); // edge: waits for another process
            }
            throw new AssertionError(log());
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
    }

    private static Path root() {
        Path folder = Path.of("").toAbsolutePath();
        while (!Files.exists(folder.resolve("mvnw"))) folder = folder.getParent();
        return folder;
    }
}
