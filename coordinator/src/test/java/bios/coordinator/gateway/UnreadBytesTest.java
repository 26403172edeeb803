package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class UnreadBytesTest {
    private static final int MOST = 1000;
    private final AtomicLong ids = new AtomicLong();
    private final RequestMemory memory = new RequestMemory(1 << 20);
    private final UnreadBytes unread = new UnreadBytes(MOST, ids::decrementAndGet, memory);

    @Test void whatIsSentAndReadInAnyOrderIsCounted() {
        var random = new Random(5);
        // What is on its way: bytes, or the id of a marker.
        Deque<Long> sent = new ArrayDeque<>();
        long expected = 0;
        for (int round = 0; round < 20_000; round++) {
            if (random.nextInt(3) > 0) {
                if (!unread.hasRoom()) {
                    assertTrue(expected >= MOST);
                } else {
                    int bytes = random.nextInt(300);
                    unread.add(bytes);
                    expected += bytes;
                    sent.add((long) bytes);
                    unread.markerAfterAQuarter(round).ifPresent(sent::add);
                }
                if (random.nextInt(20) == 0) unread.markerAgain(round, round).ifPresent(sent::add);
            } else {
                // A marker may get lost; the next one counts for both.
                boolean lost = random.nextInt(5) == 0;
                long read = 0;
                while (!sent.isEmpty()) {
                    long next = sent.remove();
                    if (next >= 0) {
                        read += next;
                    } else if (!lost) {
                        unread.declined(next);
                        unread.declined(next);
                        expected = 0;
                        for (long later : sent) expected += Math.max(0, later);
                        break;
                    }
                }
                if (sent.isEmpty() && !unread.hasRoom()) {
                    unread.markerAgain(Long.MAX_VALUE, round).ifPresent(unread::declined);
                    expected = 0;
                }
            }
        }
        unread.markerAgain(Long.MAX_VALUE, 0).ifPresent(unread::declined);
        assertEquals(0, memory.taken());
        assertTrue(unread.hasRoom());
    }

    @Test void aMarkerComesAfterAQuarterAndAgainWhenItIsNotDeclined() {
        unread.add(MOST / 4 - 1);
        assertTrue(unread.markerAfterAQuarter(10).isEmpty());
        unread.add(1);
        long first = unread.markerAfterAQuarter(10).orElseThrow();
        assertTrue(unread.markerAgain(10, 12).isEmpty());
        assertFalse(unread.isOlderThan(10));
        assertTrue(unread.isOlderThan(11));
        long second = unread.markerAgain(11, 12).orElseThrow();
        unread.declined(second);
        assertEquals(0, memory.taken());
        unread.declined(first);
        assertFalse(unread.isOlderThan(100));
        assertTrue(unread.markerAgain(100, 100).isEmpty(), "all is read");
    }

    @Test void bytesForWhichThereIsNoMemoryAreNotCounted() {
        RequestMemory.Share all = memory.new Share();
        all.take((1 << 20) - 10);
        assertThrows(ApiException.class, () -> unread.add(100));
        assertTrue(unread.markerAgain(Long.MAX_VALUE, 0).isEmpty());
        unread.add(5);
        unread.release();
        assertEquals((1 << 20) - 10, memory.taken());
    }
}
