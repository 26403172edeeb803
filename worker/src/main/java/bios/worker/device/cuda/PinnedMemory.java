package bios.worker.device.cuda;

import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;
import jcuda.driver.CUevent;

/// Memory of the host that the card copies to and from by itself, and the events that tell when it has: both
/// are used again. Any thread.
final class PinnedMemory implements AutoCloseable {
    private static final long LEAST_BYTES = 64 << 10;

    /// A block whose copy is under way.
    private record Copying(MemorySegment block, CUevent until) {}

    private final CudaDriver driver;
    private final TreeMap<Long, ArrayDeque<MemorySegment>> idle = new TreeMap<>();
    private final ArrayDeque<CUevent> events = new ArrayDeque<>();
    private final ArrayDeque<Copying> copying = new ArrayDeque<>();
    private final List<MemorySegment> all = new ArrayList<>();
    private boolean closed;

    PinnedMemory(CudaDriver driver) {
        this.driver = driver;
    }

    /// A block of at least this many bytes.
    synchronized MemorySegment take(long bytes) {
        collect();
        long size = Math.max(LEAST_BYTES, Long.highestOneBit(Math.max(1, 2 * bytes - 1)));
        var same = idle.get(size);
        if (same != null && !same.isEmpty()) return same.pop();
        var block = driver.allocateHost(size);
        all.add(block);
        return block;
    }

    /// Gives a block of [#take] back that no copy uses.
    synchronized void give(MemorySegment block) {
        if (!closed) idle.computeIfAbsent(block.byteSize(), _ -> new ArrayDeque<>()).push(block);
    }

    /// An event recorded on a stream now.
    synchronized CUevent mark(CudaStream on) {
        var event = events.isEmpty() ? driver.event() : events.pop();
        driver.record(event, on);
        return event;
    }

    /// Gives an event of [#mark] back.
    synchronized void give(CUevent event) {
        if (!closed) events.push(event);
    }

    /// Gives a block back as soon as what is on the stream now is done.
    synchronized void giveAfter(MemorySegment block, CudaStream on) {
        copying.add(new Copying(block, mark(on)));
    }

    private void collect() {
        while (!copying.isEmpty() && driver.happened(copying.peek().until)) {
            var done = copying.poll();
            give(done.block);
            give(done.until);
        }
    }

    /// Frees everything; the streams are done.
    @Override public synchronized void close() {
        if (closed) return;
        closed = true;
        all.forEach(driver::freeHost);
        copying.forEach(c -> driver.destroy(c.until));
        events.forEach(driver::destroy);
    }
}
