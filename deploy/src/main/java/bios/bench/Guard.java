package bios.bench;

import java.util.function.Consumer;

/// Runs measurements in this process within a [TimeLimit].
///
/// @param exceeded receives the reason if a measurement takes longer; it ends the process, because the
///     engine's computation cannot be interrupted
public record Guard(TimeLimit limit, Consumer<String> exceeded) {
    /// Runs one measurement on this thread.
    public <T, E extends Exception> T run(String what, TimeLimit.Body<T, E> body) throws E {
        return limit.guard(what, exceeded, body);
    }
}
