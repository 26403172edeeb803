package bios.coordinator;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

final class SnapshotIntervalTest {
    private static final int LEAST = 100;

    @Test void aShortListIsWrittenAtTheShortestInterval() {
        assertEquals(100, snapshots(10_000, 3));
        assertEquals(100, snapshots(10_000, LEAST));
    }

    @Test void whatSnapshotsWriteIsBoundedByWhatEventsWrite() {
        long events = 200_000;
        for (int records = 1; records < 50_000; records = records * 3 / 2 + 1) {
            long written = snapshots(events, records) * records;
            assertTrue(written <= events, records + " records: " + written + " written again");
            assertTrue(snapshots(events, records) >= events / (2L * Math.max(LEAST, records)) - 1,
                    "a recovery replays too many events of " + records);
        }
    }

    private static long snapshots(long events, int records) {
        return LongStream.rangeClosed(1, events)
                .filter(n -> SnapshotInterval.isOver(n, LEAST, records)).count();
    }
}
