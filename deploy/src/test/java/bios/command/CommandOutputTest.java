package bios.command;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;

import java.time.Duration;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/// The output of external commands, and the time limit.
class CommandOutputTest {
    private static final Duration LONG = Duration.ofSeconds(60);

    @Test void returnsTheOutput() {
        assertEquals(Optional.of("a\nb"), CommandOutput.of(LONG, "sh", "-c", "echo a; echo b >&2"));
    }

    @Test void readsMoreThanThePipeHolds() {
        assertEquals(1 << 20, CommandOutput.of(LONG, "sh", "-c", "head -c 1048576 /dev/zero | tr '\\0' x")
                .orElseThrow().length());
    }

    @Test void aFailedOrUnknownCommandHasNoOutput() {
        assertEquals(Optional.empty(), CommandOutput.of(LONG, "sh", "-c", "echo a; exit 1"));
        assertEquals(Optional.empty(), CommandOutput.of(LONG, "/no/such/command"));
    }

    @Test void aCommandThatDoesNotEndIsGivenUp() {
        assertTimeoutPreemptively(LONG, () -> assertEquals(Optional.empty(),
                CommandOutput.of(Duration.ofMillis(200), "sh", "-c", "echo a; sleep 600")));
    }
}
