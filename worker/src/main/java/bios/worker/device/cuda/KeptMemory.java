package bios.worker.device.cuda;

import java.util.ArrayDeque;
import java.util.HashMap;
import java.util.Map;

/// The blocks of a graph: a pass that is repeated takes them in the same order, and nobody else has them
/// meanwhile, so they have the same addresses each time.
final class KeptMemory {
    private final Map<Long, ArrayDeque<Long>> idle = new HashMap<>();
    private final Map<Long, Long> sizes = new HashMap<>();
    private long bytes;
    private boolean whole;

    /// A free block of exactly this many bytes; 0 if there is none.
    long take(long size) {
        var same = idle.get(size);
        if (same != null && !same.isEmpty()) return same.pop();
        if (whole) throw new IllegalStateException("a repeated pass takes other memory than before");
        return 0;
    }

    /// Adds a block that is in use.
    void add(long address, long size) {
        sizes.put(address, size);
        bytes += size;
    }

    /// Takes a block back; false if it is none of its own.
    boolean give(long address) {
        Long size = sizes.get(address);
        if (size == null) return false;
        idle.computeIfAbsent(size, _ -> new ArrayDeque<>()).push(address);
        return true;
    }

    /// No block is added from now on.
    void seal() {
        whole = true;
    }

    long bytes() {
        return bytes;
    }

    Iterable<Long> addresses() {
        return sizes.keySet();
    }
}
