package bios.command;

import bios.persistence.process.TiedProcesses;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/// Runs a short external command and returns its output.
final class CommandOutput {
    private CommandOutput() {}

    /// Output and error output of a command, without surrounding white space. Empty if the command cannot be
    /// started, fails, or takes longer than `limit`; then it is killed.
    static Optional<String> of(Duration limit, String... command) {
        try {
            Process process = TiedProcesses.start(new ProcessBuilder(command).redirectErrorStream(true));
            try {
                CompletableFuture<String> text = read(process);
                if (!process.waitFor(limit) || process.exitValue() != 0) return Optional.empty();
                return Optional.of(text.get(limit.toMillis(), TimeUnit.MILLISECONDS).strip());
            } finally {
                process.descendants().forEach(ProcessHandle::destroyForcibly);
                process.destroyForcibly();
            }
        } catch (IOException | ExecutionException | TimeoutException _) {
            return Optional.empty();
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
            return Optional.empty();
        }
    }

    /// Reads on a thread of its own: the output can be larger than the pipe, and a command that does not end
    /// must not block the caller.
    private static CompletableFuture<String> read(Process process) {
        CompletableFuture<String> text = new CompletableFuture<>();
        Thread.ofVirtual().start(() -> {
            try {
                text.complete(new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8));
            } catch (IOException failure) {
                text.completeExceptionally(failure);
            }
        });
        return text;
    }
}
