package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationTiming;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class TimingsTest {
    private final AtomicLong nanos = new AtomicLong(1000);
    private final Timings timings = new Timings(nanos::get);

    private void stored(long position, long journal) {
        timings.arrived();
        nanos.addAndGet(journal);
        timings.stored(position, 10 + position, OperationKind.OPTIM_STEP);
    }

    private static OperationTiming timing(long seq, long journal, long queue, long engine) {
        return new OperationTiming(seq, OperationKind.OPTIM_STEP, journal, queue, engine);
    }

    @Test void thePartsAddUpToTheTimeFromArrivalToResult() {
        stored(1, 20);
        stored(2, 30);
        nanos.addAndGet(100);
        timings.worked(1, 70);
        timings.finished(1);
        nanos.addAndGet(50);
        timings.worked(2, 40);
        timings.finished(2);
        assertEquals(List.of(timing(11, 20, 60, 70), timing(12, 30, 110, 40)), timings.newest());
    }

    @Test void replayedOrDiscardedOperationsHaveNoTiming() {
        timings.worked(1, 5);
        timings.finished(1);
        stored(2, 1);
        stored(3, 1);
        timings.forget(2);
        timings.finished(2);
        timings.finished(3);
        assertEquals(List.of(13L), timings.newest().stream().map(OperationTiming::seq).toList());
    }

    @Test void onlyTheNewestTimingsAreKept() {
        for (long position = 1; position <= Timings.KEPT + 3; position++) {
            stored(position, 1);
            timings.finished(position);
        }
        assertEquals(Timings.KEPT, timings.newest().size());
        assertEquals(14, timings.newest().getFirst().seq());
        assertEquals(13 + Timings.KEPT, timings.newest().getLast().seq());
    }
}
