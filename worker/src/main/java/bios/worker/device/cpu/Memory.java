package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Device.Scope;
import bios.worker.device.OutOfDeviceMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// The memory of a device: tensors with a life of their own, and scopes of scratch cut from chunks that go
/// round. All is off heap and 64-byte aligned.
final class Memory implements AutoCloseable {
    private static final long ALIGNMENT = 64;
    private static final long CHUNK = 8L << 20;
    /// Kernels read whole vectors; what they read behind a row's end is not used.
    private static final long MARGIN = 256;

    private record Chunk(Arena arena, MemorySegment memory) {}

    private final Map<Long, Chunk> tensors = new HashMap<>();
    private final List<Chunk> idle = new ArrayList<>();
    private final List<ChunkedScope> open = new ArrayList<>();
    private final long limit;
    private long inUse;

    /// @param limit most bytes of all tensors, scratch and what is counted otherwise
    Memory(long limit) {
        this.limit = limit;
    }

    long limit() {
        return limit;
    }

    synchronized long inUse() {
        return inUse;
    }

    /// Counts memory that somebody else takes; [OutOfDeviceMemory] when it does not fit.
    synchronized void count(long bytes) {
        makeRoom(bytes);
        inUse += bytes;
    }

    /// Lets idle scratch go where that helps.
    private void makeRoom(long bytes) {
        if (bytes > limit - inUse) drop(idle);
        if (bytes > limit - inUse) throw new OutOfDeviceMemory(bytes, inUse, limit);
    }

    private Chunk allocate(long bytes) {
        makeRoom(bytes);
        var arena = Arena.ofShared();
        try {
            var chunk = new Chunk(arena, Linux.allocate(bytes, arena));
            inUse += bytes;
            return chunk;
        } catch (OutOfMemoryError _) {
            arena.close();
            throw new OutOfDeviceMemory(bytes, inUse, limit);
        }
    }

    private void drop(Chunk chunk) {
        inUse -= chunk.memory.byteSize();
        chunk.arena.close();
    }

    private void drop(List<Chunk> chunks) {
        chunks.forEach(this::drop);
        chunks.clear();
    }

    /// A tensor of zeros, until [#free] or [#close].
    synchronized HostTensor tensor(int rows, int columns) {
        var chunk = allocate(Math.max(ALIGNMENT, 4L * rows * columns) + MARGIN);
        tensors.put(chunk.memory.address(), chunk);
        return new HostTensor(chunk.memory, rows, columns, columns);
    }

    synchronized void free(HostTensor tensor) {
        var chunk = tensors.remove(tensor.memory().address());
        require(chunk != null, "not a tensor of this device, or freed before");
        drop(chunk);
    }

    synchronized Scope scope() {
        var scope = new ChunkedScope();
        open.add(scope);
        return scope;
    }

    HostTensor scratch(Scope scope, int rows, int columns) {
        require(scope instanceof ChunkedScope, "a scope of another device");
        return ((ChunkedScope) scope).cut(rows, columns);
    }

    /// The smallest idle chunk that fits; else a new one, and idle ones that are too small for it are let go
    /// if they are beyond the usual size.
    private synchronized Chunk take(long bytes) {
        var fit = idle.stream().filter(c -> c.memory.byteSize() >= bytes + MARGIN)
                .min(Comparator.comparingLong(c -> c.memory.byteSize()));
        if (fit.isPresent()) {
            idle.remove(fit.get());
            return fit.get();
        }
        if (bytes > CHUNK) {
            idle.stream().filter(c -> c.memory.byteSize() > CHUNK).forEach(this::drop);
            idle.removeIf(c -> c.memory.byteSize() > CHUNK);
        }
        return allocate(size(bytes + MARGIN));
    }

    /// Sizes go in steps of an eighth, so that like requests find the same chunk again.
    private static long size(long bytes) {
        if (bytes <= CHUNK) return CHUNK;
        long step = Long.highestOneBit(bytes) / 8;
        return (bytes + step - 1) / step * step;
    }

    @Override public synchronized void close() {
        for (var scope : List.copyOf(open)) scope.close();
        tensors.values().forEach(this::drop);
        tensors.clear();
        drop(idle);
    }

    private final class ChunkedScope implements Scope {
        private final List<Chunk> chunks = new ArrayList<>();
        private MemorySegment rest = MemorySegment.NULL;
        private boolean closed;

        HostTensor cut(int rows, int columns) {
            require(!closed, "the scope is closed");
            long bytes = (Math.max(1, 4L * rows * columns) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            if (bytes <= rest.byteSize()) return cutFrom(rest, bytes, rows, columns);
            var chunk = take(bytes);
            chunks.add(chunk);
            long left = chunk.memory.byteSize() - MARGIN - bytes;
            if (left <= rest.byteSize())
                return new HostTensor(chunk.memory.asSlice(0, bytes), rows, columns, columns);
            return cutFrom(chunk.memory.asSlice(0, bytes + left), bytes, rows, columns);
        }

        private HostTensor cutFrom(MemorySegment from, long bytes, int rows, int columns) {
            rest = from.asSlice(bytes);
            return new HostTensor(from.asSlice(0, bytes), rows, columns, columns);
        }

        @Override public void close() {
            if (closed) return;
            closed = true;
            synchronized (Memory.this) {
                idle.addAll(chunks);
                open.remove(this);
            }
        }
    }
}
