package bios.coordinator.run;

import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationTiming;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.TreeMap;
import java.util.function.LongSupplier;

/// The timings of the newest operations, in memory only: an operation that is replayed after a failure has
/// none. Belongs to one actor.
final class Timings {
    static final int MAX_TIMINGS = 1024;

    private record Started(long seq, OperationKind kind, long arrived, long stored, long worked) {}

    private final LongSupplier nanos;
    private final LongSupplier millis;
    private final TreeMap<Long, Started> started = new TreeMap<>();
    private final Deque<OperationTiming> newest = new ArrayDeque<>();
    private long arrived;

    /// @param nanos monotonic clock
    /// @param millis wall clock, to say when
    Timings(LongSupplier nanos, LongSupplier millis) {
        this.nanos = nanos;
        this.millis = millis;
    }

    /// Records the arrival of an operation, which is stored or refused before the next one arrives.
    void recordArrival() {
        arrived = nanos.getAsLong();
    }

    /// Records that an operation is in the journal.
    void recordStored(long position, long seq, OperationKind kind) {
        started.put(position, new Started(seq, kind, arrived, nanos.getAsLong(), 0));
    }

    /// Records the device time of an operation.
    void recordDeviceTime(long position, long workedNanos) {
        started.computeIfPresent(position, (_, s) ->
                new Started(s.seq(), s.kind(), s.arrived(), s.stored(), workedNanos));
    }

    /// Records that an operation has its outcome.
    void recordOutcome(long position) {
        Started s = started.remove(position);
        if (s == null) return;
        long sinceStored = nanos.getAsLong() - s.stored();
        if (newest.size() == MAX_TIMINGS) newest.removeFirst();
        newest.addLast(new OperationTiming(s.seq(), s.kind(), s.stored() - s.arrived(),
                Math.max(0, sinceStored - s.worked()), s.worked(), millis.getAsLong()));
    }

    /// Discards operations up to `position`: they get no outcome any more.
    void forget(long position) {
        started.headMap(position, true).clear();
    }

    /// The timings of the newest operations, in the order in which they finished.
    List<OperationTiming> newest() {
        return List.copyOf(newest);
    }
}
