package bios.coordinator.run;

import bios.protocol.run.OperationKind;
import java.util.List;
import java.util.stream.Stream;

/// The operations that were sent to the engine in the current session. Pure.
///
/// @param sent the position of the last operation that was sent, or that a replay skips
/// @param outstanding operations that the engine has not answered, in order
/// @param load the position of the load among these; 0: none
/// @param resolving the position of the load whose checkpoint is being resolved; 0: none
/// @param sentBytes bytes of all operations sent in this session
record Pipeline(long sent, List<PendingOperation> outstanding, long load, long resolving, long sentBytes) {
    /// The state before anything after the recovery point at `position` is sent.
    static Pipeline at(long position) {
        return new Pipeline(position, List.of(), 0, 0, 0);
    }

    boolean idle() {
        return outstanding.isEmpty();
    }

    boolean holds(long position) {
        return outstanding.stream().anyMatch(o -> o.position() == position);
    }

    /// Whether operations after `position` are outstanding.
    boolean holdsAfter(long position) {
        return outstanding.stream().anyMatch(o -> o.position() > position);
    }

    /// Whether a save is being executed.
    boolean saving() {
        return outstanding.stream().anyMatch(o -> o.saves());
    }

    /// Whether the window has no room for an operation. One operation always fits.
    boolean full(PendingOperation next, RunSettings settings) {
        if (outstanding.size() >= settings.window()) return true;
        long bytes = outstanding.stream().mapToLong(o -> o.operation().bytes()).sum();
        return !outstanding.isEmpty() && bytes + next.operation().bytes() > settings.windowBytes();
    }

    Pipeline send(PendingOperation next) {
        List<PendingOperation> longer = Stream.concat(outstanding.stream(), Stream.of(next)).toList();
        return new Pipeline(next.position(), longer,
                next.kind() == OperationKind.LOAD_STATE ? next.position() : load, resolving,
                sentBytes + next.operation().bytes());
    }

    /// Skips the operation at `position`, which needs no execution.
    Pipeline skip(long position) {
        return new Pipeline(position, outstanding, load, resolving, sentBytes);
    }

    /// Records the engine's answer for `position`.
    Pipeline answered(long position) {
        return new Pipeline(sent, outstanding.stream().filter(o -> o.position() != position).toList(),
                load == position ? 0 : load, resolving, sentBytes);
    }

    /// @param position the load whose checkpoint is being resolved; 0: none
    Pipeline resolving(long position) {
        return new Pipeline(sent, outstanding, load, position, sentBytes);
    }
}
