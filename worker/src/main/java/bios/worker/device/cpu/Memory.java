package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Device.Scope;
import bios.worker.device.Tensor;
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

    private final Map<Long, Arena> tensors = new HashMap<>();
    private final List<Chunk> idle = new ArrayList<>();
    private final List<ChunkedScope> open = new ArrayList<>();

    /// A tensor of zeros, until [#free] or [#close].
    synchronized Tensor tensor(int rows, int columns) {
        var arena = Arena.ofShared();
        var memory = Linux.allocate(Math.max(ALIGNMENT, 4L * rows * columns) + MARGIN, arena);
        tensors.put(memory.address(), arena);
        return new Tensor(memory, rows, columns, columns);
    }

    synchronized void free(Tensor tensor) {
        var arena = tensors.remove(tensor.memory().address());
        require(arena != null, "not a tensor of this device, or freed before");
        arena.close();
    }

    synchronized Scope scope() {
        var scope = new ChunkedScope();
        open.add(scope);
        return scope;
    }

    Tensor scratch(Scope scope, int rows, int columns) {
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
            idle.stream().filter(c -> c.memory.byteSize() > CHUNK).forEach(c -> c.arena.close());
            idle.removeIf(c -> c.memory.byteSize() > CHUNK);
        }
        var arena = Arena.ofShared();
        return new Chunk(arena, Linux.allocate(size(bytes + MARGIN), arena));
    }

    /// Sizes go in steps of an eighth, so that like requests find the same chunk again.
    private static long size(long bytes) {
        if (bytes <= CHUNK) return CHUNK;
        long step = Long.highestOneBit(bytes) / 8;
        return (bytes + step - 1) / step * step;
    }

    @Override public synchronized void close() {
        for (var scope : List.copyOf(open)) scope.close();
        tensors.values().forEach(Arena::close);
        tensors.clear();
        idle.forEach(c -> c.arena.close());
        idle.clear();
    }

    private final class ChunkedScope implements Scope {
        private final List<Chunk> chunks = new ArrayList<>();
        private MemorySegment rest = MemorySegment.NULL;
        private boolean closed;

        Tensor cut(int rows, int columns) {
            require(!closed, "the scope is closed");
            long bytes = (Math.max(1, 4L * rows * columns) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            if (bytes <= rest.byteSize()) return cutFrom(rest, bytes, rows, columns);
            var chunk = take(bytes);
            chunks.add(chunk);
            long left = chunk.memory.byteSize() - MARGIN - bytes;
            if (left <= rest.byteSize())
                return new Tensor(chunk.memory.asSlice(0, bytes), rows, columns, columns);
            return cutFrom(chunk.memory.asSlice(0, bytes + left), bytes, rows, columns);
        }

        private Tensor cutFrom(MemorySegment from, long bytes, int rows, int columns) {
            rest = from.asSlice(bytes);
            return new Tensor(from.asSlice(0, bytes), rows, columns, columns);
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
