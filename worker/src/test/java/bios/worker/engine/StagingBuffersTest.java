package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.load.StagingBuffer;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class StagingBuffersTest {
    @Test void noMoreStreamsRunThanThereAreBuffers() throws Exception {
        var buffers = new StagingBuffers(2 * StagingBuffers.BUFFER_BYTES);
        var running = new AtomicInteger();
        var most = new AtomicInteger();
        var done = new CountDownLatch(20);
        for (int i = 0; i < 20; i++) Thread.ofVirtual().start(() -> {
            try {
                buffers.stream(buffer -> {
                    most.accumulateAndGet(running.incrementAndGet(), Math::max);
                    Thread.yield();
                    running.decrementAndGet();
                    return buffer;
                });
                done.countDown();
            } catch (Exception failed) {
                throw new IllegalStateException(failed);
            }
        });
        assertTrue(done.await(30, TimeUnit.SECONDS));
        assertTrue(most.get() <= 2, "" + most);
    }

    @Test void closingEndsAStreamAtItsNextBlockAndAcceptsNoOther() throws Exception {
        var buffers = new StagingBuffers(1);
        var began = new CountDownLatch(1);
        var ended = new CompletableFuture<Throwable>();
        Thread.ofVirtual().start(() -> {
            try {
                buffers.stream(buffer -> {
                    began.countDown();
                    while (true) buffer.fileLayout(10);
                });
            } catch (Throwable thrown) {
                ended.complete(thrown);
            }
        });
        assertTrue(began.await(30, TimeUnit.SECONDS));
        buffers.close();
        assertInstanceOf(CancellationException.class, ended.get(30, TimeUnit.SECONDS));
        assertThrows(RejectedExecutionException.class, () -> buffers.stream(buffer -> buffer));
    }

    @Test void fewBuffersStayWhenStreamsEnd() throws Exception {
        var buffers = new StagingBuffers(64 * StagingBuffers.BUFFER_BYTES);
        Set<StagingBuffer> first = Collections.newSetFromMap(new IdentityHashMap<>());
        Set<StagingBuffer> second = Collections.newSetFromMap(new IdentityHashMap<>());
        streamInside(buffers, 10, first);
        streamInside(buffers, 10, second);
        assertEquals(10, second.size());
        second.retainAll(first);
        assertEquals(4, second.size());
    }

    /// Runs streams inside of each other, so that all have a buffer at the same time.
    private static Integer streamInside(StagingBuffers buffers, int count, Set<StagingBuffer> seen)
            throws Exception {
        return count == 0 ? Integer.valueOf(0) : buffers.stream(buffer -> {
            seen.add(buffer);
            return streamInside(buffers, count - 1, seen);
        });
    }

    @Test void thereIsAlwaysOneBuffer() throws Exception {
        assertEquals(7, new StagingBuffers(0).<Integer>stream(_ -> 7));
    }
}
