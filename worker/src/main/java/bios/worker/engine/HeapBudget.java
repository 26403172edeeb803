package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.run.StoredOperation;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;

/// How much of the Java heap operations take that are read and decoded ahead of their turn, and copies of
/// states that are being written: within a bound, so that no number of runs fills the heap. What does not fit
/// waits; what can never fit is refused with the numbers. Bookkeeping only.
final class HeapBudget {
    /// Tokens, targets and weights decoded take so many times their encoded bytes, at most.
    private static final long DECODED = 4;
    private static final long MIB = 1 << 20;
    private final long limit;
    private final Deque<RunQueue> hungry = new ArrayDeque<>();
    private long used;
    private long copied;

    /// @param limit most bytes of what is prepared, and as many of copies: one must not wait for the other
    HeapBudget(long limit) {
        this.limit = limit;
    }

    /// What an entry takes until it is done, before it is prepared.
    static long cost(QueuedOperation entry) {
        return switch (entry.command) {
            case EngineCommand.OpenRun open -> open.recoveryPoint().map(b -> b.bytes()).orElse(0L);
            case EngineCommand.Execute e -> e.loaded().map(m -> m.bytes()).orElse(0L)
                    + switch (e.operation()) {
                        case StoredOperation.Inline(_, var bytes) -> (DECODED - 1) * bytes.length;
                        case StoredOperation.InBlob(_, var blob) -> DECODED * blob.bytes();
                    };
            default -> 0;
        };
    }

    /// Takes room for an entry, if there is some.
    boolean take(QueuedOperation entry, long bytes) {
        if (used > 0 && used + bytes > limit && bytes > 0) return false;
        entry.heap += bytes;
        used += bytes;
        return true;
    }

    /// Whether a copy of so many bytes may be made now; a single one always may.
    boolean mayCopy(long bytes) {
        return copied == 0 || copied + bytes <= limit;
    }

    /// A copy of so many bytes is made for an entry.
    void copy(QueuedOperation entry, long bytes) {
        entry.copy = bytes;
        copied += bytes;
    }

    /// The copy is written, or could not be made.
    void written(QueuedOperation entry) {
        copied -= entry.copy;
        entry.copy = 0;
    }

    /// Why an entry of so many bytes can never be prepared, or nothing.
    Optional<Fault> refusal(String what, long bytes) {
        if (bytes <= limit) return Optional.empty();
        return Optional.of(Fault.server("out_of_memory", what + " needs " + mib(bytes)
                + " MiB of the Java heap, " + mib(used) + " of " + mib(limit)
                + " MiB are in use; send less at once, or raise bios.engine.heap-bytes and -Xmx"));
    }

    private static long mib(long bytes) {
        return Math.ceilDiv(bytes, MIB);
    }

    /// An entry needs its room no more.
    void give(QueuedOperation entry) {
        used -= entry.heap;
        entry.heap = 0;
    }

    /// An entry will not be done.
    void forget(QueuedOperation entry) {
        give(entry);
        written(entry);
    }

    /// A line has an entry for which there was no room.
    void wait(RunQueue line) {
        if (!hungry.contains(line)) hungry.add(line);
    }

    /// A line that waits for room, the first that did; it waits no more.
    RunQueue nextHungry() {
        return hungry.poll();
    }

    /// How many lines wait.
    int hungry() {
        return hungry.size();
    }
}
