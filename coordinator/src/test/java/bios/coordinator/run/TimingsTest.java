package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationTiming;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class TimingsTest {
    private final AtomicLong nanos = new AtomicLong(1000);
    private final Timings timings = new Timings(nanos::get, () -> 9);

    private void stored(long position, long journal) {
        timings.recordArrival();
        nanos.addAndGet(journal);
        timings.recordStored(position, 10 + position, OperationKind.OPTIM_STEP);
    }

    private static OperationTiming timing(long seq, long journal, long queue, long engine) {
        return new OperationTiming(seq, OperationKind.OPTIM_STEP, journal, queue, engine, 9);
    }

    @Test void thePartsAddUpToTheTimeFromArrivalToResult() {
        stored(1, 20);
        stored(2, 30);
        nanos.addAndGet(100);
        timings.recordDeviceTime(1, 70);
        timings.recordOutcome(1);
        nanos.addAndGet(50);
        timings.recordDeviceTime(2, 40);
        timings.recordOutcome(2);
        assertEquals(List.of(timing(11, 20, 60, 70), timing(12, 30, 110, 40)), timings.newest());
    }

    @Test void replayedOrDiscardedOperationsHaveNoTiming() {
        timings.recordDeviceTime(1, 5);
        timings.recordOutcome(1);
        stored(2, 1);
        stored(3, 1);
        timings.forget(2);
        timings.recordOutcome(2);
        timings.recordOutcome(3);
        assertEquals(List.of(13L), timings.newest().stream().map(OperationTiming::seq).toList());
    }

    @Test void onlyTheNewestTimingsAreKept() {
        for (long position = 1; position <= Timings.MAX_TIMINGS + 3; position++) {
            stored(position, 1);
            timings.recordOutcome(position);
        }
        assertEquals(Timings.MAX_TIMINGS, timings.newest().size());
        assertEquals(14, timings.newest().getFirst().seq());
        assertEquals(13 + Timings.MAX_TIMINGS, timings.newest().getLast().seq());
    }
}
