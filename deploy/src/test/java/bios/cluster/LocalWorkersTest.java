package bios.cluster;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.CommandFailed;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
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

    @Test void aWorkerThatIsKilledDuringTheFirstStartIsStartedAgain() throws Exception {
        var said = new LinkedBlockingQueue<String>();
        // It waits for a cluster that does not answer.
        var workers = new LocalWorkers(data, "127.0.0.1:1", Optional.empty(), List.of("cpu"), List.of(),
                said::add);
        var run = CompletableFuture.runAsync(() -> workers.run("http://127.0.0.1:1", _ -> { }),
                task -> Thread.ofPlatform().start(task)); // the common pool may have one thread only
        try {
            ProcessHandle first = child(run);
            assertTrue(first.destroyForcibly());
            assertEquals("worker-1 ended with status 137; it is restarted", said.poll(60, TimeUnit.SECONDS));
            first.onExit().join();
            ProcessHandle next = child(run);
            assertNotEquals(first, next);
            String end = "BIOS_PREVIOUS_END=" + first.pid() + " 137";
            // Until it has become another program, a process has the environment of its parent.
            while (next.isAlive() && !ProcessCommand.environment(next).contains(end))
                Thread.sleep(10); // edge: waits for another process
            assertTrue(next.isAlive(), "the next process is told how the one before has ended");
        } finally {
            workers.stop();
        }
        run.get(60, TimeUnit.SECONDS);
    }

    /// The process of the worker, when there is one.
    private ProcessHandle child(CompletableFuture<Void> run) throws InterruptedException {
        while (!run.isDone()) {
            var found = ProcessHandle.current().descendants().filter(ProcessHandle::isAlive)
                    .filter(process -> ProcessCommand.of(process).contains(data.toString())).findFirst();
            if (found.isPresent()) return found.get();
            Thread.sleep(10); // edge: waits for another process
        }
        run.join();
        throw new AssertionError("the workers have ended");
    }
}
