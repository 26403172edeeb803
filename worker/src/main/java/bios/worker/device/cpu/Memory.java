package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.HostArray;
import bios.worker.device.OutOfDeviceMemory;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// The memory of a device: tensors that are freed one by one, and scopes of scratch memory cut from reused
/// chunks. All memory is off heap and 64-byte aligned.
final class Memory implements AutoCloseable {
    private static final long ALIGNMENT_BYTES = 64;
    private static final long CHUNK_BYTES = 8L << 20;
    /// Kernels read whole vectors; the bytes beyond a row's end are not used.
    private static final long MARGIN_BYTES = 256;

    private record Chunk(Arena arena, MemorySegment memory) {}

    private final Map<Long, Chunk> tensors = new HashMap<>();
    private final List<Chunk> idle = new ArrayList<>();
    private final List<ChunkedScope> open = new ArrayList<>();
    private final long limit;
    private long inUse;

    /// @param limit most bytes of tensors, scratch and memory counted by [#count] together
    Memory(long limit) {
        this.limit = limit;
    }

    long limit() {
        return limit;
    }

    synchronized long inUse() {
        return inUse;
    }

    /// Counts memory that is allocated elsewhere; [OutOfDeviceMemory] if it does not fit.
    synchronized void count(long bytes) {
        makeRoom(bytes);
        inUse += bytes;
    }

    /// Counts memory that is allocated elsewhere, even beyond the limit: later allocations find less room.
    synchronized void countUnlimited(long bytes) {
        if (bytes > limit - inUse) drop(idle);
        inUse += bytes;
    }

    /// Frees idle scratch chunks if needed; [OutOfDeviceMemory] if the bytes do not fit even then.
    private void makeRoom(long bytes) {
        if (bytes > limit - inUse) drop(idle);
        if (bytes > limit - inUse) throw new OutOfDeviceMemory(bytes, inUse, limit);
    }

    /// Reverses [#count].
    synchronized void uncount(long bytes) {
        inUse -= bytes;
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

    /// Frees the scratch memory that no scope uses.
    synchronized void dropIdle() {
        drop(idle);
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
    synchronized HostTensor tensor(DType dtype, int rows, int columns) {
        var chunk = allocate(Math.max(ALIGNMENT_BYTES, (long) dtype.bytes() * rows * columns) + MARGIN_BYTES);
        tensors.put(chunk.memory.address(), chunk);
        return new HostTensor(chunk.memory, dtype, rows, columns, columns);
    }

    /// Tensors of zeros, all or none.
    List<HostTensor> tensors(DType dtype, int count, int rows, int columns) {
        var made = new ArrayList<HostTensor>();
        try {
            while (made.size() < count) made.add(tensor(dtype, rows, columns));
            return made;
        } catch (Throwable t) {
            made.forEach(this::free);
            throw t;
        }
    }

    /// Frees a tensor. Throws if it is not a tensor of this device or was freed before; see [#release].
    synchronized void free(HostTensor tensor) {
        require(release(tensor), "not a tensor of this device, or freed before");
    }

    /// Frees a tensor, or returns false if it was freed before, also by [#close]: for owners that may be
    /// closed after the device.
    synchronized boolean release(HostTensor tensor) {
        var chunk = tensors.remove(tensor.memory().address());
        if (chunk == null) return false;
        drop(chunk);
        return true;
    }

    synchronized Scope scope() {
        var scope = new ChunkedScope();
        open.add(scope);
        return scope;
    }

    HostTensor scratch(Scope scope, DType dtype, int rows, int columns) {
        require(scope instanceof ChunkedScope, "a scope of another device");
        return ((ChunkedScope) scope).cut(dtype, rows, columns);
    }

    /// Scratch of several shapes in one contiguous piece, all or none.
    List<HostTensor> scratch(Scope scope, List<? extends HostArray> shapes) {
        long bytes = shapes.stream().mapToLong(s -> aligned(bytes(s.dtype(), s.rows(), s.columns()))).sum();
        require(scope instanceof ChunkedScope, "a scope of another device");
        var memory = ((ChunkedScope) scope).cut(Math.max(ALIGNMENT_BYTES, bytes));
        var tensors = new ArrayList<HostTensor>();
        long at = 0;
        for (var s : shapes) {
            long own = aligned(bytes(s.dtype(), s.rows(), s.columns()));
            tensors.add(new HostTensor(memory.asSlice(at, own), s.dtype(), s.rows(), s.columns(),
                    s.columns()));
            at += own;
        }
        return tensors;
    }

    private static long bytes(DType dtype, int rows, int columns) {
        return Math.max(1, (long) dtype.bytes() * rows * columns);
    }

    private static long aligned(long bytes) {
        return (bytes + ALIGNMENT_BYTES - 1) / ALIGNMENT_BYTES * ALIGNMENT_BYTES;
    }

    /// The smallest idle chunk that fits, else a new one. Before a new large chunk is allocated, idle chunks
    /// larger than [#CHUNK_BYTES] are freed, because they are too small.
    private synchronized Chunk take(long bytes) {
        var fit = idle.stream().filter(c -> c.memory.byteSize() >= bytes + MARGIN_BYTES)
                .min(Comparator.comparingLong(c -> c.memory.byteSize()));
        if (fit.isPresent()) {
            idle.remove(fit.get());
            return fit.get();
        }
        if (bytes > CHUNK_BYTES) {
            idle.stream().filter(c -> c.memory.byteSize() > CHUNK_BYTES).forEach(this::drop);
            idle.removeIf(c -> c.memory.byteSize() > CHUNK_BYTES);
        }
        return allocate(size(bytes + MARGIN_BYTES));
    }

    /// Rounds sizes up in steps of an eighth, so that similar requests reuse the same chunk.
    private static long size(long bytes) {
        if (bytes <= CHUNK_BYTES) return CHUNK_BYTES;
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

        HostTensor cut(DType dtype, int rows, int columns) {
            return new HostTensor(cut(aligned(bytes(dtype, rows, columns))), dtype, rows, columns, columns);
        }

        /// `bytes`, a multiple of the alignment.
        MemorySegment cut(long bytes) {
            require(!closed, "the scope is closed");
            if (bytes <= rest.byteSize()) return cutFrom(rest, bytes);
            var chunk = take(bytes);
            chunks.add(chunk);
            long left = chunk.memory.byteSize() - MARGIN_BYTES - bytes;
            if (left <= rest.byteSize()) return chunk.memory.asSlice(0, bytes);
            return cutFrom(chunk.memory.asSlice(0, bytes + left), bytes);
        }

        private MemorySegment cutFrom(MemorySegment from, long bytes) {
            rest = from.asSlice(bytes);
            return from.asSlice(0, bytes);
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
