package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

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

    @Test void thereIsAlwaysOneBuffer() throws Exception {
        assertEquals(7, new StagingBuffers(0).<Integer>stream(_ -> 7));
    }
}
