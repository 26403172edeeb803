package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.run.RunId;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

class HostStateCacheTest {
    private final HostStateCache cache = new HostStateCache(100);

    private static RunId run(int number) {
        return new RunId("m-%012x".formatted(number));
    }

    private static BlobRef ref(int number, int bytes) {
        return new BlobRef(new BlobId("recovery/m", "%064x".formatted(number)), bytes);
    }

    private static byte[] content(int number, int bytes) {
        byte[] content = new byte[bytes];
        Arrays.fill(content, (byte) number);
        return content;
    }

    private void store(int number, int bytes) {
        try (var writer = cache.store(run(number), bytes).orElseThrow()) {
            writer.write(content(number, bytes), 0, bytes);
            writer.commit(ref(number, bytes));
        }
    }

    private boolean stored(int number, int bytes) throws IOException {
        var found = cache.open(run(number), ref(number, bytes));
        if (found.isEmpty()) return false;
        try (InputStream in = found.get()) {
            assertArrayEquals(content(number, bytes), in.readAllBytes());
        }
        return true;
    }

    @Test void theLeastRecentlyUsedPointsAreEvictedButNotWhileTheyAreRead() throws IOException {
        store(1, 40);
        store(2, 40);
        InputStream reading = cache.open(run(1), ref(1, 40)).orElseThrow();
        store(3, 40);   // evicts 2
        assertTrue(!stored(2, 40) && stored(1, 40) && stored(3, 40));
        assertEquals(80, cache.bytes());
        store(4, 60);   // evicts 3, and cannot evict 1
        assertTrue(!stored(3, 40) && stored(4, 60));
        assertArrayEquals(content(1, 40), reading.readAllBytes());
        reading.close();
        assertTrue(cache.store(run(5), 101).isEmpty());
        store(6, 100);
        assertEquals(100, cache.bytes());
    }

    @Test void aNewerPointReplacesTheRunsOlderOneEvenWhileThatIsRead() throws IOException {
        store(1, 40);
        InputStream reading = cache.open(run(1), ref(1, 40)).orElseThrow();
        try (var writer = cache.store(run(1), 30).orElseThrow()) {
            writer.write(content(9, 30), 0, 30);
            writer.commit(ref(9, 30));
        }
        assertTrue(cache.open(run(1), ref(1, 40)).isEmpty());
        assertEquals(70, cache.bytes());
        assertArrayEquals(content(1, 40), reading.readAllBytes());
        reading.close();
        assertEquals(30, cache.bytes());
    }

    @Test void aStreamThatEndsEarlyLeavesNoEntry() throws IOException {
        var writer = cache.store(run(1), 40).orElseThrow();
        try (InputStream in = writer.copying(new ByteArrayInputStream(content(1, 40)), ref(1, 40))) {
            assertEquals(20, in.readNBytes(20).length);
        }
        assertEquals(0, cache.bytes());
        assertTrue(cache.open(run(1), ref(1, 40)).isEmpty());
        try (InputStream in = cache.store(run(1), 40).orElseThrow()
                .copying(new ByteArrayInputStream(content(1, 40)), ref(1, 40))) {
            in.readAllBytes();
        }
        assertTrue(stored(1, 40));
    }
}
