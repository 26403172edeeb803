package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.BooleanSupplier;

/// The memory of a card: blocks cut from a few large chunks, the smallest free one that fits, joined with
/// their neighbours when they are freed. A freed block is used again at once: everything that touches it is
/// on one stream, or is waited for before it is freed.
///
/// The limit holds for the blocks; chunks grow with them, so a device that is opened takes what it uses.
///
/// With the system property [#BLOCKS] `separate`, each block is an allocation of the driver, in the order of
/// the compute stream: slower, but a tool that watches allocations (the emulated device of the tests, or
/// compute-sanitizer) then sees an access beyond the end of a block and one after its end.
final class CudaMemory implements AutoCloseable {
    /// Every block begins at a multiple of this.
    static final int ALIGNMENT = 256;
    /// The system property that tells where blocks come from; see above.
    static final String BLOCKS = "bios.cuda.blocks";
    private static final String SEPARATE = "separate";
    private static final long LEAST_CHUNK = 32L << 20;
    private static final long MOST_CHUNK = 1L << 30;
    private static final int CHUNKS_OF_LIMIT = 32;

    private static final class Block {
        final Chunk chunk;
        final long address;
        long bytes;
        boolean free;
        Block before;
        Block after;

        Block(Chunk chunk, long address, long bytes) {
            this.chunk = chunk;
            this.address = address;
            this.bytes = bytes;
        }

        boolean whole() {
            return before == null && after == null;
        }
    }

    private record Chunk(long address, long bytes) {}

    private final CudaDriver driver;
    private final CudaStream compute;
    private final long limit;
    private final boolean separate = SEPARATE.equals(System.getProperty(BLOCKS));
    private final TreeSet<Block> free = new TreeSet<>((a, b) -> a.bytes != b.bytes
            ? Long.compare(a.bytes, b.bytes) : Long.compare(a.address, b.address));
    private final Map<Long, Block> used = new HashMap<>();
    private final TreeMap<Long, Chunk> chunks = new TreeMap<>();
    private long inUse;
    private Runnable beforeScopesClose = () -> {};
    private BooleanSupplier whenFull = () -> false;
    /// Where the blocks of one thread are, and that thread; null if they are like all others.
    private KeptMemory kept;
    private Thread keeping;
    private boolean closed;

    /// @param limit most bytes of all blocks
    CudaMemory(CudaDriver driver, CudaStream compute, long limit) {
        this.driver = driver;
        this.compute = compute;
        this.limit = limit;
    }

    long limit() {
        return limit;
    }

    synchronized long inUse() {
        return inUse;
    }

    private static long aligned(long bytes) {
        return (Math.max(1, bytes) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }

    /// What frees memory that is kept only to be used again, if it can, and tells whether it did.
    void whenFull(BooleanSupplier act) {
        whenFull = act;
    }

    /// Takes the blocks of this thread from `memory`, and gives them back to it, until this is called with
    /// null. What `memory` has not becomes a part of it.
    synchronized void keep(KeptMemory memory) {
        kept = memory;
        keeping = memory == null ? null : Thread.currentThread();
    }

    /// Whether this thread's blocks are those of a [KeptMemory].
    boolean keeps() {
        return kept != null && keeping == Thread.currentThread();
    }

    /// The address of a new block, contents undefined; [OutOfDeviceMemory] if it does not fit.
    long allocate(long bytes) {
        try {
            return take(bytes);
        } catch (OutOfDeviceMemory full) {
            if (!whenFull.getAsBoolean()) throw full;
            return take(bytes);
        }
    }

    private synchronized long take(long bytes) {
        require(!closed, "the device is closed");
        if (!keeps()) return takeNew(bytes);
        long address = kept.take(bytes);
        if (address != 0) return address;
        address = takeNew(bytes);
        kept.add(address, bytes);
        return address;
    }

    private long takeNew(long bytes) {
        long size = aligned(bytes);
        if (size > limit - inUse) throw new OutOfDeviceMemory(bytes, inUse, limit);
        if (separate) return allocateAlone(bytes, size);
        Block block = free.ceiling(new Block(null, 0, size));
        if (block == null) block = grow(size);
        if (block == null) throw new OutOfDeviceMemory(bytes, inUse, limit);
        free.remove(block);
        block.free = false;
        if (block.bytes > size) {
            var rest = new Block(block.chunk, block.address + size, block.bytes - size);
            rest.free = true;
            rest.before = block;
            rest.after = block.after;
            if (rest.after != null) rest.after.before = rest;
            block.after = rest;
            block.bytes = size;
            free.add(rest);
        }
        used.put(block.address, block);
        inUse += size;
        return block.address;
    }

    private long allocateAlone(long bytes, long size) {
        long address = driver.allocate(Math.max(1, bytes), compute);
        if (address == 0) {
            driver.await(compute);      // blocks are freed when the stream comes to it
            address = driver.allocate(Math.max(1, bytes), compute);
        }
        if (address == 0) throw new OutOfDeviceMemory(bytes, inUse, limit);
        used.put(address, new Block(null, address, size));
        inUse += size;
        return address;
    }

    /// A new chunk as one free block; null if the card has no memory for it.
    private Block grow(long size) {
        long usual = Math.clamp(limit / CHUNKS_OF_LIMIT, LEAST_CHUNK, MOST_CHUNK);
        long bytes = Math.max(size, usual);
        long address = driver.allocate(bytes);
        if (address == 0) {
            dropIdle();
            address = driver.allocate(bytes);
        }
        if (address == 0 && bytes > size) {
            bytes = size;
            address = driver.allocate(bytes);
        }
        if (address == 0) return null;
        var chunk = new Chunk(address, bytes);
        chunks.put(address, chunk);
        var block = new Block(chunk, address, bytes);
        block.free = true;
        free.add(block);
        return block;
    }

    /// Frees a block, or returns false if there is none at this address.
    synchronized boolean release(long address) {
        if (keeps() && kept.give(address)) return true;
        Block block = used.remove(address);
        if (block == null) return false;
        inUse -= block.bytes;
        if (separate) {
            driver.free(address, compute);
            return true;
        }
        block.free = true;
        if (block.after != null && block.after.free) {
            free.remove(block.after);
            join(block, block.after);
        }
        if (block.before != null && block.before.free) {
            free.remove(block.before);
            block = join(block.before, block);
        }
        free.add(block);
        return true;
    }

    private static Block join(Block left, Block right) {
        left.bytes += right.bytes;
        left.after = right.after;
        if (left.after != null) left.after.before = left;
        return left;
    }

    /// Gives chunks without a block back to the card.
    synchronized void dropIdle() {
        var idle = free.stream().filter(Block::whole).toList();
        for (Block block : idle) {
            free.remove(block);
            chunks.remove(block.chunk.address);
            driver.free(block.chunk.address);
        }
    }

    /// A tensor of zeros, until it is freed.
    CudaTensor tensor(DType dtype, int rows, int columns) {
        var tensor = undefined(dtype, rows, columns);
        if (tensor.elements() > 0) driver.zero(tensor.address(), tensor.span(), compute);
        return tensor;
    }

    /// A tensor of undefined contents, until it is freed.
    CudaTensor undefined(DType dtype, int rows, int columns) {
        require(rows >= 0 && columns >= 0, "bad shape [%d, %d]", rows, columns);
        return new CudaTensor(allocate((long) dtype.bytes() * rows * columns), dtype, rows, columns, columns);
    }

    /// Frees a tensor. Throws if it is not a tensor of this device or was freed before; see [#release].
    void free(Tensor tensor) {
        require(release(CudaTensor.of(tensor).address()), "not a tensor of this device, or freed before");
    }

    Scope scope() {
        return new BlockScope();
    }

    /// What is done before the memory of a scope is freed.
    void beforeScopesClose(Runnable act) {
        beforeScopesClose = act;
    }

    /// Memory until a scope is closed.
    long scratch(Scope scope, long bytes) {
        require(scope instanceof BlockScope own && own.memory() == this, "a scope of another device");
        return ((BlockScope) scope).take(bytes);
    }

    /// A tensor of undefined contents until a scope is closed.
    CudaTensor scratch(Scope scope, DType dtype, int rows, int columns) {
        require(rows >= 0 && columns >= 0, "bad shape [%d, %d]", rows, columns);
        return new CudaTensor(scratch(scope, (long) dtype.bytes() * rows * columns), dtype, rows, columns,
                columns);
    }

    /// Frees all memory.
    @Override public synchronized void close() {
        if (closed) return;
        closed = true;
        for (long chunk : separate ? used.keySet() : chunks.keySet()) driver.free(chunk);
        chunks.clear();
        used.clear();
        free.clear();
        inUse = 0;
    }

    private final class BlockScope implements Scope {
        private final List<Long> blocks = new ArrayList<>();
        private boolean ended;

        CudaMemory memory() {
            return CudaMemory.this;
        }

        long take(long bytes) {
            require(!ended, "the scope is closed");
            long address = allocate(bytes);
            blocks.add(address);
            return address;
        }

        @Override public void close() {
            if (ended) return;
            ended = true;
            beforeScopesClose.run();
            blocks.forEach(CudaMemory.this::release);
        }
    }
}
