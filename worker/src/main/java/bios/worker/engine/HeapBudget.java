package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.run.StoredOperation;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;

/// How much of the Java heap operations take that are read and decoded ahead of their turn: within a bound,
/// so that no number of runs fills the heap. What does not fit waits; what can never fit is refused with the
/// numbers. States take none of it: they stream through [StagingBuffers]. Bookkeeping only.
final class HeapBudget {
    /// Tokens, targets and weights decoded take this many times their encoded bytes, at most.
    private static final long DECODED = 4;
    private static final long MIB = 1 << 20;
    private final long limit;
    private final Deque<RunQueue> waiting = new ArrayDeque<>();
    private long used;

    /// @param limit most bytes of what is decoded
    HeapBudget(long limit) {
        this.limit = limit;
    }

    /// Bytes that an operation takes from its decoding to its outcome.
    static long cost(QueuedOperation operation) {
        if (!(operation.command instanceof EngineCommand.Execute execute)) return 0;
        return switch (execute.operation()) {
            case StoredOperation.Inline(_, var bytes) -> (DECODED - 1) * bytes.length;
            case StoredOperation.InBlob(_, var blob) -> DECODED * blob.bytes();
            case StoredOperation.Refused _ -> 0;
        };
    }

    /// Reserves room for an operation.
    ///
    /// @return false: there is none now
    boolean reserve(QueuedOperation operation, long bytes) {
        if (used > 0 && used + bytes > limit && bytes > 0) return false;
        operation.heapBytes += bytes;
        used += bytes;
        return true;
    }

    /// Why an operation of this many bytes can never be decoded, or nothing.
    Optional<Fault> refusal(String what, long bytes) {
        if (bytes <= limit) return Optional.empty();
        return Optional.of(Fault.server("out_of_memory", what + " needs " + mib(bytes)
                + " MiB of the Java heap, " + mib(used) + " of " + mib(limit)
                + " MiB are in use; send less at once, or raise bios.engine.heap-bytes and -Xmx"));
    }

    private static long mib(long bytes) {
        return Math.ceilDiv(bytes, MIB);
    }

    /// Releases the room of an operation.
    void release(QueuedOperation operation) {
        used -= operation.heapBytes;
        operation.heapBytes = 0;
    }

    /// Bytes that are reserved.
    long used() {
        return used;
    }

    /// Adds a run whose next operation found no room.
    void addWaiting(RunQueue run) {
        if (!waiting.contains(run)) waiting.add(run);
    }

    /// Removes and returns the run that has waited longest.
    RunQueue pollWaiting() {
        return waiting.poll();
    }

    /// Number of runs that wait.
    int waiting() {
        return waiting.size();
    }
}
