package bios.bench;

import bios.CommandFailed;
import bios.command.Installation;
import bios.protocol.run.Operation;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.net.http.HttpClient;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;

/// Java's ahead-of-time cache of this program (JEP 483, 514, 515): its classes loaded and linked, and the
/// profiles of its methods, in one file that later processes map. A start then takes half the processor time.
/// It fits the jars and the JDK that wrote it; with others, Java goes on without it.
///
/// @param file where it is written
public record AotCache(Path file) {
    private static final String MODEL = "bios/tiny";
    private static final int STEPS = 5;
    private static final int TOKENS = 8;
    private static final Duration WRITING = Duration.ofMinutes(5);

    /// Runs a server that trains, saves, loads and samples, and writes the cache of what it used. A process
    /// that ends meanwhile leaves the old file.
    public void write() throws IOException {
        Path folder = Files.createTempDirectory(file.toAbsolutePath().getParent(), "aot-cache-");
        try {
            Path written = folder.resolve("bios.aot");
            try (Child server = Child.bios(List.of("-XX:AOTCacheOutput=" + written, "-Xlog:aot*=off",
                    "-Xlog:cds*=off"), List.of("up", "--port", "0", "--data",
                    folder.resolve("data").toString(), "--model", MODEL + "=" + Installation.tinyModel()))) {
                use(server.await("bios ready on "));
                server.end(WRITING);
            }
            if (!Files.exists(written))
                throw new CommandFailed("Java wrote no cache; " + file + " stays as it was");
            Files.move(written, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } finally {
            Setup.delete(folder);
        }
    }

    private static void use(String url) {
        try (var client = new ActorsBench.HttpProtocol(HttpClient.newHttpClient(), url)) {
            String run = client.createRun(1).toCompletableFuture().join();
            Operation.ForwardBackward pass = ActorsBench.pass(ActorsBench.small(), false);
            for (int step = 0; step < STEPS; step++) {
                mustBeDone(client.submit(run, 2 * step + 1, pass));
                mustBeDone(client.submit(run, 2 * step + 2, new Operation.OptimStep(Optional.empty())));
            }
            int seq = 2 * STEPS;
            JsonNode saved = call(client, "save_weights", body(run, ++seq).put("path", "cache"));
            call(client, "load_weights", body(run, ++seq).put("path", saved.path("path").asText())
                    .put("optimizer", true));
            String weights = call(client, "save_weights_for_sampler", body(run, ++seq).put("path", "cache"))
                    .path("path").asText();
            ObjectNode completion = Report.JSON.createObjectNode().put("model", weights)
                    .put("prompt", "The quick brown fox").put("max_tokens", TOKENS);
            done(client.post("/v1/completions", completion).toCompletableFuture().join());
        }
    }

    private static JsonNode call(ActorsBench.HttpProtocol client, String call, ObjectNode body) {
        return done(client.call(call, body).toCompletableFuture().join());
    }

    private static ObjectNode body(String run, long seq) {
        return Report.JSON.createObjectNode().put("model_id", run).put("seq_id", seq);
    }

    private static void mustBeDone(CompletionStage<Optional<String>> operation) {
        operation.toCompletableFuture().join().ifPresent(refusal -> {
            throw new CommandFailed("the server that fills the cache refused an operation: " + refusal);
        });
    }

    private static JsonNode done(JsonNode answer) {
        if (answer.has("error"))
            throw new CommandFailed("the server that fills the cache answered " + answer);
        return answer;
    }
}
