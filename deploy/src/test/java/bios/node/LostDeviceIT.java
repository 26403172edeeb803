package bios.node;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.node.FaultyNode.Fault;
import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A real process whose device is lost: it ends with its status, blames no operation, and started again it
/// executes what it had accepted.
final class LostDeviceIT {
    @TempDir Path folder;

    @Test void itEndsWithItsStatusAndItsRunsGoOnAfterTheRestart() throws Exception {
        Path lost = Fault.LOST.file(folder);
        JsonNode save;
        try (var first = new FaultyProcess(folder, "first", "")) {
            save = FaultyProcess.JSON.createObjectNode().put("model_id", first.createRun(1)).put("seq_id", 1)
                    .put("path", "here");
            Files.createFile(lost);
            JsonNode accepted = first.post("save_weights", save).orElseThrow();
            Optional<JsonNode> answer = first.poll(accepted);
            assertFalse(answer.filter(a -> a.has("error")).isPresent(), answer::toString);
            first.awaitEnd(75);
            assertTrue(first.log().contains("the device is lost: fell off the bus"), first::log);
        }
        Files.delete(lost);
        try (var second = new FaultyProcess(folder, "second", "")) {
            second.ready();
            JsonNode answer = second.result(second.post("save_weights", save).orElseThrow());
            assertTrue(answer.has("path"), second::log);
        }
    }
}
