package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.HostArray;
import bios.worker.device.Tensor;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.Function;
import jcuda.driver.CUevent;

/// Copies between the host and the card. All operands and results of verbs are copied on the stream of the
/// verbs, so that the order of calls is the order of copies; parts of snapshots are copied beside it.
final class CudaTransfers {
    /// Most bytes of one part of a large copy.
    private static final long PART_BYTES = 4L << 20;
    /// Bytes of the card's report of an operand that is out of range: a kind, the value, the limit.
    static final int FAULT_BYTES = 16;

    private final Cuda cuda;

    CudaTransfers(Cuda cuda) {
        this.cuda = cuda;
    }

    // ---- to the card ----

    /// The arrays in one block of scratch, by one copy.
    List<Tensor> upload(Scope scope, List<? extends HostArray> arrays) {
        long[] at = new long[arrays.size()];
        long total = 0;
        for (int i = 0; i < at.length; i++) {
            at[i] = total;
            var array = arrays.get(i);
            total += aligned((long) array.dtype().bytes() * array.rows() * array.columns());
        }
        long base = upload(scope, total, to -> {
            for (int i = 0; i < at.length; i++) {
                switch (arrays.get(i)) {
                    case HostArray.Ints ints -> MemorySegment.copy(ints.values(), 0, to,
                            ValueLayout.JAVA_INT, at[i], ints.values().length);
                    case HostArray.Floats floats -> MemorySegment.copy(floats.values(), 0, to,
                            ValueLayout.JAVA_FLOAT, at[i], floats.values().length);
                }
            }
        });
        var tensors = new ArrayList<Tensor>();
        for (int i = 0; i < at.length; i++) {
            var array = arrays.get(i);
            tensors.add(new CudaTensor(base + at[i], array.dtype(), array.rows(), array.columns(),
                    array.columns()));
        }
        return List.copyOf(tensors);
    }

    private static long aligned(long bytes) {
        return (bytes + CudaMemory.ALIGNMENT - 1) / CudaMemory.ALIGNMENT * CudaMemory.ALIGNMENT;
    }

    /// The address of `bytes` of scratch with what `fill` writes; earlier verbs have their own contents.
    long upload(Scope scope, long bytes, Consumer<MemorySegment> fill) {
        long to = cuda.memory().scratch(scope, bytes);
        if (bytes == 0) return to;
        var block = cuda.pinned().take(bytes);
        fill.accept(block);
        cuda.driver().toDevice(to, block.asSlice(0, bytes), cuda.compute());
        cuda.pinned().giveAfter(block, cuda.compute());
        return to;
    }

    /// to ← from[at] and after, for later verbs.
    void write(Tensor tensor, float[] from, int at) {
        var to = CudaTensor.of(tensor).floats();
        require(at >= 0 && at + to.elements() <= from.length, "%d values from %d of %d", to.elements(), at,
                from.length);
        for (var part : parts(to)) {
            var block = cuda.pinned().take(part.bytes(to));
            for (int row = 0; row < part.rows; row++)
                store(block, (long) row * part.columns, to.dtype(), from,
                        at + (part.row + row) * to.columns() + part.column, part.columns);
            copy(false, part.of(to), block, cuda.compute());
            cuda.pinned().giveAfter(block, cuda.compute());
        }
    }

    private static void store(MemorySegment to, long element, DType dtype, float[] from, int at, int n) {
        if (dtype == DType.F32) {
            MemorySegment.copy(from, at, to, ValueLayout.JAVA_FLOAT, 4 * element, n);
            return;
        }
        for (int i = 0; i < n; i++)
            to.set(ValueLayout.JAVA_SHORT, 2 * (element + i), HalfFloats.toBf16(from[at + i]));
    }

    // ---- to the host ----

    /// Starts to copy tensors, and the card's report of faults.
    CudaReadback readback(List<Tensor> tensors) {
        var all = tensors.stream().map(CudaTensor::of).toList();
        long[] at = new long[all.size()];
        long total = FAULT_BYTES;
        for (int i = 0; i < at.length; i++) {
            at[i] = total;
            total += Math.ceilDiv(all.get(i).elements() * all.get(i).dtype().bytes(), 16) * 16;
        }
        var block = cuda.pinned().take(total);
        for (int i = 0; i < at.length; i++)
            copy(true, all.get(i), block.asSlice(at[i]), cuda.compute());
        copyFaults(block);
        return new CudaReadback(this, all, block, at, cuda.pinned().mark(cuda.compute()));
    }

    private void copyFaults(MemorySegment block) {
        cuda.driver().toHost(block.asSlice(0, FAULT_BYTES), cuda.faults(), cuda.compute());
    }

    /// Throws what a kernel has found in its operands.
    private void requireNoFault(MemorySegment block) {
        int kind = block.get(ValueLayout.JAVA_INT, 0);
        if (kind == 0) return;
        cuda.driver().zero(cuda.faults(), FAULT_BYTES, cuda.compute());
        String what = switch (kind) {
            case 1 -> "row";
            case 2 -> "token";
            case 3 -> "position";
            case 4 -> "target";
            default -> "operand";
        };
        throw new IllegalStateException("%s %d of %d".formatted(what, block.get(ValueLayout.JAVA_INT, 4),
                block.get(ValueLayout.JAVA_INT, 8)));
    }

    /// Waits for a copy, and gives its event back.
    void await(CUevent event) {
        cuda.driver().await(event);
        cuda.pinned().give(event);
    }

    /// Takes what `read` makes of a block whose copy is done; the block is given back.
    <T> T take(MemorySegment block, Function<MemorySegment, T> read) {
        try {
            requireNoFault(block);
            return read.apply(block);
        } finally {
            cuda.pinned().give(block);
        }
    }

    /// Gives back the block and the event of a readback that nobody reads.
    void discard(MemorySegment block, CUevent event) {
        cuda.pinned().giveAfter(block, cuda.compute());
        cuda.pinned().give(event);
    }

    /// to[at] and after ← the elements of a tensor, row by row.
    void read(Tensor tensor, float[] to, int at) {
        var from = CudaTensor.of(tensor).floats();
        require(at >= 0 && at + from.elements() <= to.length, "%d values from %d into %d", from.elements(),
                at, to.length);
        read(from, to, at, cuda.compute(), true);
    }

    /// The same on a stream. The next part is copied while one is converted.
    ///
    /// @param results whether it contains results of verbs
    void read(CudaTensor from, float[] to, int at, CudaStream on, boolean results) {
        Started last = null;
        for (var part : parts(from)) {
            var next = start(part, from, on, results);
            if (last != null) finish(last, from, to, at);
            last = next;
        }
        if (last != null) finish(last, from, to, at);
    }

    /// A part whose copy is under way; its data follow the report of faults.
    private record Started(Part part, MemorySegment block, CUevent event) {}

    private Started start(Part part, CudaTensor from, CudaStream on, boolean results) {
        var block = cuda.pinned().take(FAULT_BYTES + part.bytes(from));
        block.asSlice(0, FAULT_BYTES).fill((byte) 0);
        copy(true, part.of(from), block.asSlice(FAULT_BYTES), on);
        if (results) copyFaults(block);
        return new Started(part, block, cuda.pinned().mark(on));
    }

    private void finish(Started started, CudaTensor from, float[] to, int at) {
        await(started.event);
        var part = started.part;
        take(started.block, block -> {
            for (int row = 0; row < part.rows; row++)
                load(to, at + (part.row + row) * from.columns() + part.column, block,
                        FAULT_BYTES + (long) row * part.columns * from.dtype().bytes(), from.dtype(),
                        part.columns);
            return block;
        });
    }

    /// to[at] and after ← n elements of F32 or BF16.
    static void load(float[] to, int at, MemorySegment from, long offset, DType dtype, int n) {
        if (dtype == DType.F32) {
            MemorySegment.copy(from, ValueLayout.JAVA_FLOAT, offset, to, at, n);
            return;
        }
        for (int i = 0; i < n; i++)
            to[at + i] = HalfFloats.fromBf16(from.get(ValueLayout.JAVA_SHORT, offset + 2L * i));
    }

    // ---- parts ----

    /// A part of a tensor that is copied at once.
    private record Part(int row, int rows, int column, int columns) {
        long bytes(CudaTensor t) {
            return (long) rows * columns * t.dtype().bytes();
        }

        CudaTensor of(CudaTensor t) {
            return t.rows(row, rows).columns(column, columns);
        }
    }

    private static List<Part> parts(CudaTensor t) {
        var parts = new ArrayList<Part>();
        if (t.elements() == 0) return parts;
        int elements = Math.toIntExact(PART_BYTES / t.dtype().bytes());
        int columns = Math.min(elements, t.columns());
        int rows = elements / columns;
        for (int row = 0; row < t.rows(); row += rows)
            for (int column = 0; column < t.columns(); column += columns)
                parts.add(new Part(row, Math.min(rows, t.rows() - row), column,
                        Math.min(columns, t.columns() - column)));
        return parts;
    }

    /// Copies a tensor from or to the beginning of a block, where its rows follow each other.
    private void copy(boolean toHost, CudaTensor t, MemorySegment block, CudaStream on) {
        if (t.elements() == 0) return;
        long width = (long) t.columns() * t.dtype().bytes();
        if (t.dense()) {
            var own = block.asSlice(0, width * t.rows());
            if (toHost) cuda.driver().toHost(own, t.address(), on);
            else cuda.driver().toDevice(t.address(), own, on);
            return;
        }
        cuda.driver().copyRows(toHost, t.address(), (long) t.stride() * t.dtype().bytes(), block, width,
                t.rows(), on);
    }
}
