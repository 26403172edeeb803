package bios.node;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.node.FaultyNode.Fault;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.net.Socket;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Real processes that end during the pass of an operation: what the next process knows of it, and what
/// becomes of the operation. Each result is that of an undisturbed run, to the bit.
final class WorkerEndsIT {
    private static final int ATTEMPTS = 2;
    /// A recovery point follows each step, so that no step is replayed in a pass that ends the process.
    private static final String SETTINGS = "bios.run { attempts = " + ATTEMPTS + ", retry-after = 200 ms,"
            + " recovery-point.steps = 1 }\nbios.gateway.long-poll = 1 s";

    @TempDir Path folder;
    private String run;
    private List<JsonNode> undisturbed;
    private FaultyProcess process;

    @BeforeEach void train() throws Exception {
        process = new FaultyProcess(folder, "first", SETTINGS);
        String other = process.createRun(7);
        step(process, other);
        undisturbed = results(process, submitted(process, other));
        run = process.createRun(7);
        step(process, run);
        process.await(() -> kinds().contains("recovery_point"));
    }

    @Test void anOperationThatEndsItsWorkersIsSetAsideAndExecutedWhenItNoLongerDoes() throws Exception {
        Files.createFile(Fault.ENDS.file(folder));
        evaluate(process, run, "forward_backward", 3); // the process may end before it answers
        process.awaitEnd(FaultyNode.ENDED_STATUS);
        for (int i = 1; i < ATTEMPTS; i++) {
            process = new FaultyProcess(folder, "ends-" + i, SETTINGS);
            process.awaitEnd(FaultyNode.ENDED_STATUS);
        }
        process = new FaultyProcess(folder, "last", SETTINGS);
        List<JsonNode> accepted = submitted(process, run);
        for (JsonNode error : results(process, accepted)) {
            assertEquals("worker_lost", error.path("code").asText(), error::toString);
            assertTrue(error.get("error").asText().contains("set aside"), error::toString);
        }
        Files.delete(Fault.ENDS.file(folder));
        process.post("training_runs/" + run + "/retry", FaultyProcess.JSON.createObjectNode()).orElseThrow();
        assertEquals(undisturbed, results(process, accepted));
        List<String> kinds = kinds();
        assertEquals(ATTEMPTS, Collections.frequency(kinds, "worker_died"), kinds::toString);
        assertEquals(1, Collections.frequency(kinds, "set_aside"), kinds::toString);
        assertEquals(1, Collections.frequency(kinds, "retried"), kinds::toString);
    }

    /// The process is killed as a supervisor does whose patience has ended.
    @Test void aPlannedStopDuringAnOperationCountsForNothing() throws Exception {
        Files.createFile(Fault.HANGS.file(folder));
        List<JsonNode> accepted = submitted(process, run);
        process.await(() -> Files.exists(folder.resolve(FaultyNode.HANGING)));
        String url = process.ready();
        process.terminate();
        for (int i = 0; i < 600 && listens(url); i++) Thread.sleep(100); // edge: waits for another process
        process.kill();
        Files.delete(Fault.HANGS.file(folder));
        process = new FaultyProcess(folder, "second", SETTINGS);
        assertEquals(undisturbed, results(process, accepted));
        List<String> kinds = kinds();
        assertEquals(0, Collections.frequency(kinds, "worker_died"), kinds::toString);
    }

    @AfterEach void stop() {
        process.close();
    }

    private static boolean listens(String url) {
        URI at = URI.create(url);
        try (var _ = new Socket(at.getHost(), at.getPort())) {
            return true;
        } catch (IOException _) {
            return false;
        }
    }

    private static void step(FaultyProcess process, String run) throws InterruptedException {
        results(process, List.of(evaluate(process, run, "forward_backward", 1).orElseThrow(),
                process.post("optim_step", step(run, 2)).orElseThrow()));
    }

    /// A step on another batch and what the model is then.
    private static List<JsonNode> submitted(FaultyProcess process, String run) throws InterruptedException {
        return List.of(evaluate(process, run, "forward_backward", 3).orElseThrow(),
                process.post("optim_step", step(run, 4)).orElseThrow(),
                evaluate(process, run, "forward", 5).orElseThrow());
    }

    private static List<JsonNode> results(FaultyProcess process, List<JsonNode> accepted)
            throws InterruptedException {
        List<JsonNode> results = new ArrayList<>();
        for (JsonNode one : accepted) results.add(process.result(one));
        return results;
    }

    private static Optional<JsonNode> evaluate(FaultyProcess process, String run, String call, int seq)
            throws InterruptedException {
        ObjectNode request = operation(run, seq);
        ObjectNode input = request.putObject(call + "_input").put("loss_fn", "cross_entropy");
        ObjectNode datum = input.putArray("data").addObject();
        numbers(datum.putObject("model_input").putArray("chunks").addObject().put("type", "encoded_text")
                .putArray("tokens"), seq);
        numbers(datum.putObject("loss_fn_inputs").putObject("target_tokens").put("dtype", "int64")
                .putArray("data"), seq + 1);
        return process.post(call, request);
    }

    private static void numbers(ArrayNode to, int first) {
        IntStream.range(0, 9).forEach(i -> to.add(first + 37 * i));
    }

    private static ObjectNode step(String run, int seq) {
        ObjectNode request = operation(run, seq);
        request.putObject("adam_params").put("learning_rate", 0.01);
        return request;
    }

    private static ObjectNode operation(String run, int seq) {
        return FaultyProcess.JSON.createObjectNode().put("model_id", run).put("seq_id", seq);
    }

    /// The kinds of the entries in the run's history, oldest first.
    private List<String> kinds() {
        try {
            List<String> kinds = new ArrayList<>();
            process.get("training_runs/" + run + "/history").get("history")
                    .forEach(entry -> kinds.add(entry.get("kind").asText()));
            return kinds;
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException(interrupted);
        }
    }
}
