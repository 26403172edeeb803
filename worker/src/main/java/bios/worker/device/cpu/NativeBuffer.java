package bios.worker.device.cpu;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/// Native memory that grows to the largest size asked for, 64-byte aligned; contents undefined. It is counted
/// in a device's memory, but never refused: what a kernel needs beside its operands is small.
final class NativeBuffer implements AutoCloseable {
    private final Memory counted;
    private Arena arena;
    private MemorySegment memory = MemorySegment.NULL;

    /// @param counted the memory in which it is counted
    NativeBuffer(Memory counted) {
        this.counted = counted;
    }

    /// One buffer for each thread.
    static NativeBuffer[] each(int threads, Memory counted) {
        NativeBuffer[] buffers = new NativeBuffer[threads];
        for (int i = 0; i < threads; i++) buffers[i] = new NativeBuffer(counted);
        return buffers;
    }

    MemorySegment atLeast(long bytes) {
        if (memory.byteSize() >= bytes && arena != null) return memory;
        long size = Math.max(4096, bytes + bytes / 8);
        close();
        arena = Arena.ofShared();
        memory = Linux.allocate(size, arena);
        counted.countUnlimited(size);
        return memory;
    }

    @Override public void close() {
        if (arena != null) arena.close();
        arena = null;
        counted.uncount(memory.byteSize());
        memory = MemorySegment.NULL;
    }
}
