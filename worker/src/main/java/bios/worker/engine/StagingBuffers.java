package bios.worker.engine;

import bios.worker.load.StagingBuffer;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.RejectedExecutionException;

/// The buffers through which states and adapters stream between stores and the device: a fixed number, so
/// that any number of runs streams in bounded heap. A virtual thread waits for a free one. Closing it ends
/// all streams at their next block.
final class StagingBuffers {
    /// Bytes of one buffer at its largest: a block as bytes, as in the file, and as on the device.
    static final long BUFFER_BYTES = 3L * 4 * StagingBuffer.ELEMENTS;
    private static final int MOST = 64;
    /// Buffers that are kept for the next streams; more are garbage when their streams end.
    private static final int KEPT = 4;
    private static final long CLOSE_MILLIS = 10_000;

    private final int limit;
    private final Deque<StagingBuffer> idle = new ArrayDeque<>();
    private final Deque<StagingBuffer> lent = new ArrayDeque<>();
    private boolean closed;

    /// @param heapBytes most bytes of all buffers; there is always one
    StagingBuffers(long heapBytes) {
        limit = Math.clamp(heapBytes / BUFFER_BYTES, 1, MOST);
    }

    /// A stream through a buffer.
    @FunctionalInterface
    interface Streaming<T> {
        T through(StagingBuffer buffer) throws Exception;
    }

    /// Runs a stream through a free buffer; waits until there is one.
    <T> T stream(Streaming<T> streaming) throws Exception {
        StagingBuffer buffer = take();
        try {
            return streaming.through(buffer);
        } finally {
            give(buffer);
        }
    }

    private synchronized StagingBuffer take() throws InterruptedException {
        while (!closed && lent.size() == limit) wait(); // edge: a virtual thread waits for a buffer
        if (closed) throw new RejectedExecutionException("the device is closed");
        StagingBuffer buffer = idle.isEmpty() ? new StagingBuffer() : idle.pop();
        lent.add(buffer);
        return buffer;
    }

    private synchronized void give(StagingBuffer buffer) {
        lent.remove(buffer);
        if (idle.size() < KEPT) idle.push(buffer);
        notifyAll();
    }

    /// Ends all streams and waits, a bounded time, until none uses the device.
    synchronized void close() {
        closed = true;
        lent.forEach(StagingBuffer::cancel);
        notifyAll();
        try {
            for (long waited = 0; !lent.isEmpty() && waited < CLOSE_MILLIS; waited += 100)
                wait(100); // edge: waits for the end of streams
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
        }
    }
}
