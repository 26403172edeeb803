package bios.worker.device.cpu;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/// Native memory that grows to the largest size asked for, 64-byte aligned; contents undefined.
final class NativeBuffer implements AutoCloseable {
    private Arena arena;
    private MemorySegment memory = MemorySegment.NULL;

    MemorySegment atLeast(long bytes) {
        if (memory.byteSize() >= bytes && arena != null) return memory;
        long size = Math.max(4096, bytes + bytes / 8);
        close();
        arena = Arena.ofShared();
        memory = Linux.allocate(size, arena);
        return memory;
    }

    @Override public void close() {
        if (arena != null) arena.close();
        arena = null;
        memory = MemorySegment.NULL;
    }
}
