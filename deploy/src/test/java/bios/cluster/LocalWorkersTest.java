package bios.cluster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.CommandFailed;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The first start of the workers of several devices. `emulated_gpu.py` shows the start of one whose card is
/// lost.
final class LocalWorkersTest {
    @TempDir private Path data;

    @Test void aWorkerThatCannotStartEndsTheStartWithTheEndOfItsLog() {
        List<String> said = new ArrayList<>();
        var workers = new LocalWorkers(data, "127.0.0.1:1", Optional.empty(), List.of("cpu"),
                List.of("--no-such-option"), said::add);
        String why = assertThrows(CommandFailed.class, () -> workers.run("http://127.0.0.1:1", said::add))
                .getMessage();
        Path log = data.resolve("logs").resolve("worker-1.log");
        assertTrue(why.startsWith("worker-1 ended during its start; the end of " + log + ":\n"), why);
        assertTrue(why.contains("--no-such-option"), why);
        assertEquals(List.of(), said);
    }
}
