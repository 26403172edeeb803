package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Activations;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.Weight;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/// Matrix products with oneDNN. The right factor is packed in panels of columns, the left factor is split
/// into blocks of rows; one thread computes one (panel, block). The result of a row is bitwise independent of
/// block and panel; a single row is computed as two. bf16 weights multiply activations rounded to bf16, with
/// fp32 sums. A split row becomes two rows of one block, so that the weights are read once; the two products
/// are then added.
final class DnnlProducts implements Products {
    private static final int PANEL_COLUMNS = 512;
    /// Elements that are scaled at a time.
    private static final int SCALE_CHUNK = 4096;
    private static final int[] BLOCK_ROWS = {2, 4, 8, 16, 32, 64, 128};
    private static final int MAX_BLOCK_ROWS = BLOCK_ROWS[BLOCK_ROWS.length - 1];

    /// `count` rows from `row`, padded to `size` rows.
    private record Block(int row, int count, int size) {}

    /// Columns `from` to `from + width` of a right factor, packed.
    private record Panel(int from, int width, MemorySegment packed) {}

    /// A packed right factor `[depth, columns]`.
    private record PackedRight(int type, int depth, int columns, List<Panel> panels) {}

    /// A left factor with its row stride; if `padded`, rows beyond the last may be read up to a whole block.
    private record LeftFactor(MemorySegment memory, int type, int rows, int stride, boolean padded) {}

    /// A frozen matrix in one or two packed forms.
    private final class PackedWeight implements Weight {
        private final FrozenMatrix matrix;
        private final PackedRight forward;
        private PackedRight backward;

        PackedWeight(FrozenMatrix matrix) {
            this.matrix = matrix;
            forward = pack(matrix, true);
        }

        @Override public int out() {
            return matrix.rows();
        }

        @Override public int in() {
            return matrix.columns();
        }

        PackedRight packedBackward() {
            if (backward != null) return backward;
            matrix.unchanged().run();
            backward = pack(matrix, false);
            try {
                matrix.unchanged().run();
            } catch (RuntimeException changed) {
                backward = null;
                throw changed;
            }
            return backward;
        }
    }

    private final Dnnl dnnl;
    private final Pool pool;
    private final Memory memory;
    private final Workspace[] workspaces;
    private final DnnlKernels kernels;
    private final Arena weightArena = Arena.ofShared();
    private final NativeBuffer roundedBuffer;
    private final NativeBuffer scaledBuffer;
    private final NativeBuffer rightBuffer;
    private final NativeBuffer[] threadBuffers;
    private final OuterProducts outer;
    private final Activations activations;

    DnnlProducts(Dnnl dnnl, Pool pool, Memory memory, Workspace[] workspaces, Activations activations) {
        this.dnnl = dnnl;
        this.pool = pool;
        this.memory = memory;
        roundedBuffer = new NativeBuffer(memory);
        scaledBuffer = new NativeBuffer(memory);
        rightBuffer = new NativeBuffer(memory);
        this.workspaces = workspaces;
        this.activations = activations;
        kernels = new DnnlKernels(dnnl, pool.size(), memory);
        threadBuffers = NativeBuffer.each(pool.size(), memory);
        outer = new OuterProducts(pool, memory, workspaces, kernels, threadBuffers);
    }

    @Override public String description() {
        return "oneDNN on %s, bf16 weights multiplied as %s, activations %s".formatted(dnnl.instructionSet(),
                usesBf16Products() ? "bf16" : "fp32", activationDescription());
    }

    /// Without bf16 instructions activations are not split.
    private String activationDescription() {
        if (usesBf16Products()) return activations.description();
        return switch (activations) {
            case EXACT, SPLIT -> Activations.EXACT.description();
            case ROUNDED -> activations.description();
            case MIXED -> "rounded with large weights, otherwise unchanged";
        };
    }

    private boolean usesBf16Products() {
        return dnnl.multipliesBf16() && activations != Activations.EXACT;
    }

    // ---- right factors ----

    @Override public Weight packWeight(FrozenMatrix matrix) {
        FiniteScan.all(matrix, pool);
        return new PackedWeight(matrix);
    }

    /// Without the padding of oneDNN's blocks.
    @Override public long packedBytes(FrozenMatrix matrix) {
        return (long) matrix.rows() * matrix.columns() * (direct(matrix) ? matrix.dtype().bytes() : 4);
    }

    /// Whether the elements are packed as they are; others are widened to fp32.
    private boolean direct(FrozenMatrix matrix) {
        return matrix.dtype() == WeightType.F32 || matrix.dtype() == WeightType.BF16 && usesBf16Products();
    }

    /// Wᵀ `[in, out]` for forward, W `[out, in]` for backward.
    private PackedRight pack(FrozenMatrix matrix, boolean forward) {
        int in = matrix.columns();
        boolean direct = direct(matrix);
        int type = matrix.dtype() == WeightType.BF16 && direct ? Dnnl.BF16 : Dnnl.F32;
        try (var arena = Arena.ofShared()) {
            var from = direct ? matrix.memory() : widened(matrix, arena);
            return forward ? pack(from, type, in, matrix.rows(), 1, in, null)
                    : pack(from, type, matrix.rows(), in, in, 1, null);
        }
    }

    private static MemorySegment widened(FrozenMatrix matrix, Arena arena) {
        int n = matrix.columns();
        var memory = arena.allocate(4L * matrix.rows() * n, 64);
        float[] row = new float[n];
        for (int i = 0; i < matrix.rows(); i++) {
            HalfFloats.row(row, matrix, i);
            MemorySegment.copy(row, 0, memory, ValueLayout.JAVA_FLOAT, 4L * i * n, n);
        }
        return memory;
    }

    /// Packs `[depth, columns]` into `to`, or into permanent memory if that is null.
    private PackedRight pack(MemorySegment from, int type, int depth, int columns, long rowStride,
            long columnStride, NativeBuffer to) {
        int count = Math.max(1, (columns + PANEL_COLUMNS - 1) / PANEL_COLUMNS);
        int width = Math.min(columns, ((columns + count - 1) / count + 63) / 64 * 64);
        var forms = new ArrayList<DnnlKernels.Form>();
        var packers = new ArrayList<DnnlKernels.Kernel>();
        long bytes = 0;
        for (int at = 0; at < columns; at += width) {
            int n = Math.min(width, columns - at);
            forms.add(kernels.form(type, depth, n));
            packers.add(kernels.pack(type, depth, n, rowStride, columnStride));
            bytes += (forms.getLast().bytes() + 63) / 64 * 64;
        }
        var packed = to == null ? permanent(bytes) : to.atLeast(bytes);
        var panels = new ArrayList<Panel>();
        for (int i = 0; i < forms.size(); i++) {
            long size = (forms.get(i).bytes() + 63) / 64 * 64;
            panels.add(new Panel(i * width, Math.min(width, columns - i * width), packed.asSlice(0, size)));
            packed = packed.asSlice(size);
        }
        long element = type == Dnnl.BF16 ? 2 : 4;
        pool.run(panels.size(), 8L * depth * columns, (i, thread) -> {
            var panel = panels.get(i);
            packers.get(i).run(thread, from.asSlice(element * columnStride * panel.from), null, panel.packed);
        });
        return new PackedRight(type, depth, columns, panels);
    }

    private MemorySegment permanent(long bytes) {
        memory.count(bytes);
        try {
            return weightArena.allocate(bytes, 64);
        } catch (Throwable t) {
            memory.uncount(bytes);
            throw t;
        }
    }

    /// The packed form that backward reads is made at its first use.
    @Override public void prepareBackward(Weight w) {
        ((PackedWeight) w).packedBackward();
    }

    /// s·a packed, a `[depth, columns]` or its transpose in memory; valid until the next call.
    private PackedRight pack(HostTensor a, boolean transposed, float s) {
        var from = a.memory();
        int stride = a.stride();
        if (s != 1) {
            from = scaled(a, s);
            stride = a.columns();
        }
        return transposed ? pack(from, Dnnl.F32, a.columns(), a.rows(), 1, stride, rightBuffer)
                : pack(from, Dnnl.F32, a.rows(), a.columns(), stride, 1, rightBuffer);
    }

    /// s·a, dense. Contiguous rows are processed as one long row, because those of an adapter may be short.
    private MemorySegment scaled(HostTensor a, float s) {
        boolean dense = a.stride() == a.columns();
        long width = dense ? a.elements() : a.columns();
        var to = scaledBuffer.atLeast(4 * a.elements());
        float[] part = workspaces[0].row(0, SCALE_CHUNK);
        for (int row = 0; row < (dense ? 1 : a.rows()); row++) {
            for (long at = 0; at < width; at += SCALE_CHUNK) {
                int n = (int) Math.min(SCALE_CHUNK, width - at);
                long from = 4 * ((long) row * a.stride() + at);
                MemorySegment.copy(a.memory(), ValueLayout.JAVA_FLOAT, from, part, 0, n);
                for (int j = 0; j < n; j++) part[j] *= s;
                MemorySegment.copy(part, 0, to, ValueLayout.JAVA_FLOAT, 4 * (row * width + at), n);
            }
        }
        return to;
    }

    // ---- left factors ----

    private LeftFactor leftFactor(HostTensor x) {
        return new LeftFactor(x.memory(), Dnnl.F32, x.rows(), x.stride(), false);
    }

    /// x rounded to bf16 and stored in the right factor's element type (bf16 or fp32); zero rows after the
    /// last.
    private LeftFactor roundedLeftFactor(HostTensor x, int type) {
        int stride = (x.columns() + 31) / 32 * 32;
        var to = padded(x.rows(), (long) stride * (type == Dnnl.BF16 ? 2 : 4));
        if (type == Dnnl.BF16) roundToBf16(to, x, stride, false);
        else roundKeepingFp32(to, x, stride);
        return new LeftFactor(to, type, x.rows(), stride, true);
    }

    /// Rows 2i and 2i + 1 are bf16 numbers whose sum is row i of x; zero rows after the last.
    private LeftFactor splitLeftFactor(HostTensor x) {
        int stride = (x.columns() + 31) / 32 * 32;
        var to = padded(2 * x.rows(), 2L * stride);
        roundToBf16(to, x, stride, true);
        return new LeftFactor(to, Dnnl.BF16, 2 * x.rows(), stride, true);
    }

    private MemorySegment padded(int rows, long rowBytes) {
        int padding = smallestHolding(rows);
        var memory = roundedBuffer.atLeast((rows + padding) * rowBytes);
        memory.asSlice(rows * rowBytes, padding * rowBytes).fill((byte) 0);
        return memory;
    }

    private void roundToBf16(MemorySegment to, HostTensor x, int stride, boolean split) {
        int n = x.columns();
        int apart = split ? 2 * stride : stride;
        var blocks = new ArrayList<Block>();
        var compiled = new ArrayList<DnnlKernels.Kernel>();
        var errorKernels = new ArrayList<DnnlKernels.Kernel>();
        for (int row = 0; row < x.rows(); row += blocks.getLast().count) {
            int rest = x.rows() - row;
            int count = rest >= 64 ? 64 : rest >= 16 ? 16 : rest >= 4 ? 4 : 1;
            blocks.add(new Block(row, count, count));
            compiled.add(kernels.round(count, n, x.stride(), apart));
            if (split) errorKernels.add(kernels.round(count, n, n, apart));
        }
        pool.run(blocks.size(), 8 * x.elements(), (i, thread) -> {
            long row = blocks.get(i).row;
            var dst = to.asSlice(2 * row * apart);
            compiled.get(i).run(thread, x.memory().asSlice(4 * row * x.stride()), null, dst);
            if (!split) return;
            errorKernels.get(i).run(thread, roundingErrors(x, blocks.get(i), thread), null,
                    dst.asSlice(2L * stride));
        });
    }

    /// x - bf16(x) for the rows of a block, dense.
    private MemorySegment roundingErrors(HostTensor x, Block block, int thread) {
        int n = x.columns();
        var to = threadBuffers[thread].atLeast(4L * block.count * n);
        int[] bits = workspaces[thread].ints(n);
        float[] rest = workspaces[thread].row(0, n);
        float[] high = workspaces[thread].row(1, n);
        for (int i = 0; i < block.count; i++) {
            long from = 4L * (block.row + i) * x.stride();
            MemorySegment.copy(x.memory(), ValueLayout.JAVA_FLOAT, from, rest, 0, n);
            MemorySegment.copy(x.memory(), ValueLayout.JAVA_INT, from, bits, 0, n);
            HalfFloats.roundToBf16InPlace(bits, n);
            // through memory, because Float.intBitsToFloat prevents C2 from vectorizing the loop
            MemorySegment.copy(MemorySegment.ofArray(bits), ValueLayout.JAVA_FLOAT, 0, high, 0, n);
            for (int j = 0; j < n; j++) rest[j] -= high[j];
            MemorySegment.copy(rest, 0, to, ValueLayout.JAVA_FLOAT, 4L * i * n, n);
        }
        return to;
    }

    /// Writes x to `to` as fp32 values, each rounded to bf16 precision.
    private void roundKeepingFp32(MemorySegment to, HostTensor x, int stride) {
        int n = x.columns();
        pool.run(x.rows(), 8 * x.elements(), (row, thread) -> {
            int[] bits = workspaces[thread].ints(n);
            MemorySegment.copy(x.memory(), ValueLayout.JAVA_INT, 4L * row * x.stride(), bits, 0, n);
            HalfFloats.roundToBf16InPlace(bits, n);
            MemorySegment.copy(bits, 0, to, ValueLayout.JAVA_INT, 4L * row * stride, n);
        });
    }

    /// The smallest block size that is at least n, or the largest block size.
    private static int smallestHolding(int n) {
        for (int size : BLOCK_ROWS) if (size >= n) return size;
        return MAX_BLOCK_ROWS;
    }

    /// Splits rows into blocks: the largest that fit, and at the end one with padding if at most a quarter of
    /// it is padding.
    private static List<Block> blocks(int rows) {
        var blocks = new ArrayList<Block>();
        for (int row = 0; row < rows; ) {
            int rest = rows - row;
            int size = smallestHolding(rest);
            if (size > 2 && rest < size && 4 * rest < 3 * size) size /= 2;
            int count = Math.min(size, rest);
            blocks.add(new Block(row, count, size));
            row += count;
        }
        return blocks;
    }

    // ---- products ----

    /// y ← (or +=) left·right.
    private void product(HostTensor y, LeftFactor left, PackedRight right, boolean add) {
        var blocks = blocks(left.rows);
        var direct = new ArrayList<DnnlKernels.Kernel>();
        for (var panel : right.panels) {
            for (var block : blocks) {
                boolean whole = block.count == block.size;
                int srcStride = whole || left.padded ? left.stride : right.depth;
                int dstStride = whole ? y.stride() : panel.width;
                direct.add(kernels.product(right.type, block.size, right.depth, panel.width, srcStride,
                        dstStride, add));
            }
        }
        pool.run(direct.size(), (long) left.rows * right.depth * right.columns, (task, thread) -> {
            var panel = right.panels.get(task / blocks.size());
            var block = blocks.get(task % blocks.size());
            var kernel = direct.get(task);
            long element = left.type == Dnnl.BF16 ? 2 : 4;
            var src = left.memory.asSlice(element * block.row * left.stride);
            if (block.count == block.size) {
                kernel.run(thread, src, panel.packed,
                        y.memory().asSlice(4 * ((long) block.row * y.stride() + panel.from)));
            } else {
                multiplyPartialBlock(kernel, thread, src, left, right, panel, block, y, add);
            }
        });
    }

    /// y ← (or +=) the sums of left's pairs of rows, times right.
    private void productOfPairs(HostTensor y, LeftFactor left, PackedRight right, boolean add) {
        var blocks = blocks(left.rows);
        var compiled = new ArrayList<DnnlKernels.Kernel>();
        for (var panel : right.panels) {
            for (var block : blocks) {
                compiled.add(kernels.product(right.type, block.size, right.depth, panel.width, left.stride,
                        panel.width, false));
            }
        }
        pool.run(compiled.size(), (long) left.rows * right.depth * right.columns, (task, thread) -> {
            var panel = right.panels.get(task / blocks.size());
            var block = blocks.get(task % blocks.size());
            var pairs = threadBuffers[thread].atLeast(4L * block.size * panel.width);
            compiled.get(task).run(thread, left.memory.asSlice(2L * block.row * left.stride),
                    panel.packed, pairs);
            addPairs(y, pairs, panel, block, workspaces[thread], add);
        });
    }

    private static void addPairs(HostTensor y, MemorySegment pairs, Panel panel, Block block,
            Workspace space, boolean add) {
        int n = panel.width;
        float[] sum = space.row(0, n);
        float[] low = space.row(1, n);
        float[] before = add ? space.row(2, n) : null;
        for (int i = 0; i < block.count; i += 2) {
            long to = 4 * ((long) (block.row + i) / 2 * y.stride() + panel.from);
            MemorySegment.copy(pairs, ValueLayout.JAVA_FLOAT, 4L * i * n, sum, 0, n);
            MemorySegment.copy(pairs, ValueLayout.JAVA_FLOAT, 4L * (i + 1) * n, low, 0, n);
            for (int j = 0; j < n; j++) sum[j] += low[j];
            if (add) MemorySegment.copy(y.memory(), ValueLayout.JAVA_FLOAT, to, before, 0, n);
            for (int j = 0; add && j < n; j++) sum[j] += before[j];
            MemorySegment.copy(sum, 0, y.memory(), ValueLayout.JAVA_FLOAT, to, n);
        }
    }

    /// Computes a padded block: the result, and the left factor if it is not padded, are in a separate
    /// buffer.
    private void multiplyPartialBlock(DnnlKernels.Kernel kernel, int thread, MemorySegment src,
            LeftFactor left, PackedRight right, Panel panel, Block block, HostTensor y, boolean add) {
        long srcBytes = left.padded ? 0 : (4L * block.size * right.depth + 63) / 64 * 64;
        var buffer = threadBuffers[thread].atLeast(srcBytes + 4L * block.size * panel.width);
        var dst = buffer.asSlice(srcBytes);
        if (!left.padded) {
            for (int i = 0; i < block.count; i++) {
                MemorySegment.copy(src, 4L * i * left.stride, buffer, 4L * i * right.depth, 4L * right.depth);
            }
            buffer.asSlice(4L * block.count * right.depth, 4L * (block.size - block.count) * right.depth)
                    .fill((byte) 0);
        }
        if (add) dst.asSlice(0, 4L * block.size * panel.width).fill((byte) 0);
        for (int i = 0; add && i < block.count; i++) {
            MemorySegment.copy(y.memory(), 4 * ((long) (block.row + i) * y.stride() + panel.from), dst,
                    4L * i * panel.width, 4L * panel.width);
        }
        kernel.run(thread, left.padded ? src : buffer, panel.packed, dst);
        for (int i = 0; i < block.count; i++) {
            MemorySegment.copy(dst, 4L * i * panel.width, y.memory(),
                    4 * ((long) (block.row + i) * y.stride() + panel.from), 4L * panel.width);
        }
    }

    @Override public void multiply(HostTensor y, HostTensor x, Weight w) {
        require(y.columns() == w.out() && x.columns() == w.in() && y.rows() == x.rows(),
                "shapes do not match in y = x·Wᵀ");
        multiplyByWeight(y, x, (PackedWeight) w, ((PackedWeight) w).forward, activations, false);
    }

    @Override public void addInputGradient(HostTensor dx, HostTensor dy, Weight w) {
        require(dx.columns() == w.in() && dy.columns() == w.out() && dx.rows() == dy.rows(),
                "shapes do not match in dx += dy·W");
        multiplyByWeight(dx, dy, (PackedWeight) w, ((PackedWeight) w).packedBackward(), activations, true);
    }

    private void multiplyByWeight(HostTensor y, HostTensor x, PackedWeight w, PackedRight form,
            Activations how, boolean add) {
        if (x.rows() == 0) return;
        boolean bf16 = w.matrix.dtype() == WeightType.BF16;
        boolean round = how == Activations.ROUNDED || how == Activations.MIXED && !how.split(w.out(), w.in());
        if (bf16 && round) product(y, roundedLeftFactor(x, form.type), form, add);
        else if (form.type == Dnnl.BF16) productOfPairs(y, splitLeftFactor(x), form, add);
        else product(y, leftFactor(x), form, add);    // without bf16 in hardware splitting gains nothing
    }

    @Override public void multiplyByTransposed(HostTensor y, HostTensor x, HostTensor a, float s,
            boolean add) {
        require(y.columns() == a.rows() && x.columns() == a.columns() && y.rows() == x.rows(),
                "shapes do not match in y = x·aᵀ");
        if (x.rows() > 0) product(y, leftFactor(x), pack(a, true, s), add);
    }

    @Override public void multiplyBy(HostTensor y, HostTensor x, HostTensor b, float s, boolean add) {
        require(y.columns() == b.columns() && x.columns() == b.rows() && y.rows() == x.rows(),
                "shapes do not match in y = x·b");
        if (x.rows() > 0) product(y, leftFactor(x), pack(b, false, s), add);
    }

    @Override public void outerAdd(HostTensor g, HostTensor y, HostTensor x, float s) {
        require(g.rows() == y.columns() && g.columns() == x.columns() && y.rows() == x.rows(),
                "shapes do not match in g += yᵀ·x");
        if (x.rows() > 0) outer.add(g, y, x, s);
    }

    @Override public void close() {
        kernels.close();
        outer.close();
        weightArena.close();
        for (var buffer : List.of(roundedBuffer, scaledBuffer, rightBuffer)) buffer.close();
        for (var buffer : threadBuffers) buffer.close();
    }
}
