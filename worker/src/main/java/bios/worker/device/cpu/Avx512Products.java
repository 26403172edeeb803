package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Activations;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.Weight;
import bios.worker.device.cpu.GemmKernel.Left;
import bios.worker.device.cpu.GemmKernel.Result;
import bios.worker.device.cpu.GemmKernel.Right;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Products by [GemmKernel]. With few rows the kernel reads bf16 weights in packed form, so that each byte is
/// read once; with many, a task widens a panel of weights to fp32 in the L2 cache and multiplies all its rows
/// by it. Every element is one chain of fused multiply-adds in the order of the inner dimension, so a row's
/// bits depend neither on the other rows nor on any of these choices.
final class Avx512Products implements Products {
    private static final int SLIVER = Packed.SLIVER;
    /// Most slivers and most inner steps of a panel: in fp32 half of the L2 cache.
    private static final int PANEL = 8;
    private static final int DEPTH = Processor.secondCache() >= 2 << 20 ? 1024 : 512;
    /// The same for activations split in two parts, which alternate; the bits of split products depend on
    /// this number.
    private static final int HALVES_DEPTH = 512;
    /// Rows of a chunk that is multiplied by a panel.
    private static final int ROWS = 32 * GemmKernel.ROWS;
    /// Most rows for which weights are read in packed form.
    private static final int FEW = 2 * GemmKernel.ROWS;
    /// Tasks for each thread, so that the threads finish at about the same time.
    private static final int TASKS = 4;
    /// Prefetch distance of weights in bytes.
    private static final long AHEAD = 8192;
    /// The cost of reading a weight, in multiplications.
    private static final long READING = 8;
    /// Tokens of one block of a sum over tokens.
    private static final int TOKENS = 128;

    private final Pool pool;
    private final Memory memory;
    private final Activations activations;
    private final boolean dots;
    private final Arena frozen = Arena.ofShared();
    private final ReadAhead ahead = new ReadAhead();
    private final NativeBuffer[] panels;
    private final NativeBuffer[] factors;
    private final NativeBuffer left;
    private final NativeBuffer turned;
    private final NativeBuffer outer;

    /// @param dots whether the processor has the bf16 instruction, which all [Activations] except exact need
    Avx512Products(Pool pool, Memory memory, Activations activations, boolean dots) {
        this.pool = pool;
        this.memory = memory;
        this.activations = activations;
        this.dots = dots && activations != Activations.EXACT;
        panels = NativeBuffer.each(pool.size(), memory);
        factors = NativeBuffer.each(pool.size(), memory);
        left = new NativeBuffer(memory);
        turned = new NativeBuffer(memory);
        outer = new NativeBuffer(memory);
    }

    @Override public String description() {
        return "own kernels on AVX-512, bf16 weights multiplied as " + (dots
                ? "bf16, activations " + activations.description()
                : "fp32, activations as they are");
    }

    @Override public Weight packWeight(FrozenMatrix matrix) {
        long bytes = packedBytes(matrix);
        memory.count(bytes);
        try {
            return Packed.of(matrix, frozen, pool, ahead);
        } catch (Throwable t) {
            memory.uncount(bytes);
            throw t;
        }
    }

    @Override public long packedBytes(FrozenMatrix matrix) {
        return Packed.bytes(matrix);
    }

    // ---- frozen products ----

    /// Rows of the left factor: fp32, or one or two bf16 numbers for each element (the second is the rounded
    /// remainder).
    private record Rows(long address, long stride, long rest) {
        static Rows of(HostTensor x) {
            return new Rows(x.memory().address(), 4L * x.stride(), 0);
        }
    }

    /// y's rows `from` to `end`, and their correction, if any.
    private record Segment(int from, int end, Optional<HostLowRank> correction) {}

    /// One product with a frozen matrix.
    private record Work(HostTensor y, Rows x, int depth, Packed w, boolean forward, boolean add,
            Optional<HostTensor> bias,
            Optional<HostTensor> onto, List<Segment> segments, Right right) {
        int slivers() {
            return (y.columns() + SLIVER - 1) / SLIVER;
        }

        /// Whether the sum starts with the contents of y.
        boolean begun() {
            return add || bias.isPresent() || onto.isPresent();
        }
    }

    @Override public void multiply(HostTensor y, HostTensor x, Weight w) {
        project(y, x, w, Optional.empty(), Optional.empty(), List.of());
    }

    @Override public void addInputGradient(HostTensor dx, HostTensor dy, Weight w) {
        projectBack(dx, dy, w, true, List.of());
    }

    @Override public void project(HostTensor y, HostTensor x, Weight w, Optional<HostTensor> bias,
            Optional<HostTensor> onto,
            List<HostLowRank> corrections) {
        require(y.columns() == w.out() && x.columns() == w.in() && y.rows() == x.rows(),
                "shapes of y = x·Wᵀ");
        frozen(y, x, (Packed) w, true, false, bias, onto, corrections);
    }

    @Override public void projectBack(HostTensor dx, HostTensor dy, Weight w, boolean add,
            List<HostLowRank> corrections) {
        require(dx.columns() == w.in() && dy.columns() == w.out() && dx.rows() == dy.rows(),
                "shapes of dx = dy·W");
        frozen(dx, dy, (Packed) w, false, add, Optional.empty(), Optional.empty(), corrections);
    }

    private void frozen(HostTensor y, HostTensor x, Packed w, boolean forward, boolean add,
            Optional<HostTensor> bias,
            Optional<HostTensor> onto, List<HostLowRank> corrections) {
        if (x.rows() == 0) return;
        boolean few = x.rows() <= FEW && forward;
        var right = !w.pairs() ? Right.FLOATS : dots ? Right.DOTS : few ? Right.PAIRS : Right.FLOATS;
        var rows = right == Right.DOTS ? halves(x, activations.split(w.out(), w.in()))
                : right == Right.PAIRS && x.columns() % 2 == 1 ? evened(x) : Rows.of(x);
        var work = new Work(y, rows, x.columns(), w, forward, add, bias, onto, segments(x.rows(),
                corrections), right);
        if (few) few(work);
        else many(work);
    }

    private static List<Segment> segments(int rows, List<HostLowRank> corrections) {
        var segments = new ArrayList<Segment>();
        int row = 0;
        for (var c : corrections) {
            if (c.row() > row) segments.add(new Segment(row, c.row(), Optional.empty()));
            row = c.row() + c.low().rows();
            segments.add(new Segment(c.row(), row, Optional.of(c)));
        }
        if (row < rows) segments.add(new Segment(row, rows, Optional.empty()));
        return segments;
    }

    /// Reads every sliver of weights once, for all rows.
    private void few(Work work) {
        int slivers = work.slivers();
        int rows = work.y.rows();
        int each = Math.clamp(slivers / (TASKS * pool.size()), 1, 16);
        // with several tiles, all but the first read the sliver from the cache
        int tiles = rows <= GemmKernel.MOST ? 1 : (rows + GemmKernel.ROWS - 1) / GemmKernel.ROWS;
        int height = (rows + tiles - 1) / tiles;
        // with few rows, reading the weights takes most of the time
        long operations = Math.max(rows, READING) * work.depth * work.y.columns();
        pool.run((slivers + each - 1) / each, operations, (task, _) -> {
            int first = task * each;
            int count = Math.min(each, slivers - first);
            begin(work, 0, rows, first, count);
            for (int sliver = first; sliver < first + count; sliver++) few(work, sliver, height);
            for (int row = 0; row < rows; row += GemmKernel.ROWS)
                correct(work, List.of(), row, Math.min(GemmKernel.ROWS, rows - row), first, count);
        });
    }

    /// Multiplies by one packed sliver, in tiles of this many rows. The two parts of split activations
    /// alternate, as in [#panel].
    private void few(Work work, int sliver, int height) {
        long b = work.w.address() + sliver * work.w.sliverBytes();
        int all = work.w.steps();
        int rows = work.y.rows();
        int each = work.x.rest != 0 ? HALVES_DEPTH / 2 : all;
        for (int step = 0; step < all; step += each)
            for (int row = 0; row < rows; row += height)
                tile(work, row, Math.min(height, rows - row), sliver, 1, b + (long) step * Packed.STEP, step,
                        Math.min(each, all - step), 0, step, row == 0 ? AHEAD : 0);
    }

    private void many(Work work) {
        int slivers = work.slivers();
        int rows = work.y.rows();
        int chunks = Math.max(1, (rows + ROWS / 2) / ROWS);
        int each = PANEL;
        while (each > 2 && (long) chunks * ((slivers + each - 1) / each) < TASKS * pool.size()) each /= 2;
        int width = each;
        int wide = (slivers + width - 1) / width;
        // equal chunks of whole tiles
        int chunk = ((rows + chunks - 1) / chunks + GemmKernel.ROWS - 1) / GemmKernel.ROWS * GemmKernel.ROWS;
        long operations = (long) rows * work.depth * work.y.columns();
        pool.run(wide * chunks, operations, (task, member) -> {
            int sliver = task / chunks * width;
            int from = task % chunks * chunk;
            panel(work, sliver, Math.min(width, slivers - sliver), from, Math.min(rows, from + chunk),
                    member);
        });
    }

    /// Rows `from` to `end` of `count` slivers.
    private void panel(Work work, int sliver, int count, int from, int end, int member) {
        if (from >= end) return;
        var turned = work.forward ? List.<Long>of() : turned(work, sliver, count, from, end, member);
        // inner elements of a step
        int terms = work.right == Right.DOTS ? 2 : 1;
        int depth = work.x.rest == 0 ? equal(work.depth, DEPTH) : HALVES_DEPTH;
        for (int at = 0; at < work.depth; at += depth) {
            int next = Math.min(work.depth, at + depth);
            int steps = (next - at + terms - 1) / terms;
            // panels are written in blocks of 16 inner elements
            int length = Transposes.padded(next - at) / terms;
            long b = right(work, sliver, count, at, next, length, member);
            long bSliver = packedAsItIs(work) ? work.w.sliverBytes() : (long) length * Packed.STEP;
            for (int row = from; row < end; row += GemmKernel.ROWS) {
                int rows = Math.min(GemmKernel.ROWS, end - row);
                if (at == 0) begin(work, row, rows, sliver, count);
                tile(work, row, rows, sliver, count, b, at / terms, steps, bSliver, at, 0);
                if (next == work.depth) correct(work, turned, row, rows, sliver, count);
            }
        }
    }

    /// The size of a part if n is split into as few, about equal parts of whole blocks as the limit allows.
    private static int equal(int n, int limit) {
        int parts = (n + limit - 1) / limit;
        return Transposes.padded((n + parts - 1) / parts);
    }

    private static boolean packedAsItIs(Work work) {
        return work.forward && (!work.w.pairs() || work.right == Right.DOTS);
    }

    /// The address of the panel's right factor, inner elements `at` to `next`.
    private long right(Work work, int sliver, int count, int at, int next, int length, int member) {
        var w = work.w;
        if (packedAsItIs(work))
            return w.address() + sliver * w.sliverBytes() + at / (w.pairs() ? 2L : 1L) * Packed.STEP;
        long panel = panels[member].atLeast((long) count * length * Packed.STEP).address();
        if (work.forward) w.forwardPanel(panel, sliver, count, at, next, length);
        else if (work.right == Right.DOTS) w.backwardPairs(panel, sliver, count, at, next, length);
        else w.backwardPanel(panel, sliver, count, at, next, length);
        return panel;
    }

    /// Each segment's factor `[columns, rank]`, transposed for the panel's columns.
    private List<Long> turned(Work work, int sliver, int count, int from, int end, int member) {
        int columns = Math.min(count * SLIVER, work.y.columns() - sliver * SLIVER);
        long bytes = 0;
        for (var segment : work.segments)
            if (segment.correction.isPresent())
                bytes += (long) Packed.STEP * count
                        * Transposes.padded(segment.correction.get().factor().columns());
        var memory = factors[member].atLeast(bytes + 256);
        var addresses = new ArrayList<Long>();
        long at = 0;
        for (var segment : work.segments) {
            addresses.add(memory.address() + at);
            if (segment.correction.isEmpty() || segment.end <= from || segment.from >= end) continue;
            var factor = segment.correction.get().factor();
            Transposes.transpose(memory.asSlice(at), (long) Packed.STEP * count,
                    factor.rows(sliver * SLIVER, columns));
            at += (long) Packed.STEP * count * Transposes.padded(factor.columns());
        }
        return addresses;
    }

    /// Initializes a tile of y with residual and bias.
    private static void begin(Work work, int row, int rows, int sliver, int count) {
        if (work.bias.isEmpty() && work.onto.isEmpty()) return;
        int column = sliver * SLIVER;
        int columns = Math.min(count * SLIVER, work.y.columns() - column);
        for (int i = row; i < row + rows; i++) {
            var from = work.onto.map(HostTensor::memory).orElseGet(() -> work.bias.get().memory());
            long at = work.onto.isPresent() ? (long) i * work.onto.get().stride() : 0;
            long to = 4 * ((long) i * work.y.stride() + column);
            MemorySegment.copy(from, 4 * (at + column), work.y.memory(), to, 4L * columns);
            if (work.onto.isEmpty() || work.bias.isEmpty()) continue;
            for (int j = 0; j < columns; j++)
                work.y.memory().set(ValueLayout.JAVA_FLOAT, to + 4L * j,
                        work.y.memory().get(ValueLayout.JAVA_FLOAT, to + 4L * j)
                                + work.bias.get().memory().get(ValueLayout.JAVA_FLOAT, 4L * (column + j)));
        }
    }

    /// Adds the terms of `steps` steps, from step `first`, to a tile of y.
    private void tile(Work work, int row, int rows, int sliver, int count, long b, int first, int steps,
            long bSliver, int at, long ahead) {
        boolean pairs = work.right == Right.PAIRS;
        long a = work.x.address + row * work.x.stride + first * (pairs ? 8L : 4L);
        long c = work.y.memory().address() + 4 * ((long) row * work.y.stride() + sliver * SLIVER);
        var result = at > 0 || work.begun() ? Result.ADD : Result.WRITE;
        long mask = GemmKernel.mask(work.y.columns() - (sliver + count - 1) * SLIVER);
        Kernels.call(Kernels.gemm(rows, 2, Left.ROWS, work.right, result, ahead > 0), a, work.x.stride, b,
                Packed.STEP, c, 4L * work.y.stride(), steps, count, bSliver, mask, 1, ahead);
        if (work.x.rest != 0)
            Kernels.call(Kernels.gemm(rows, 2, Left.ROWS, work.right, Result.ADD), a + work.x.rest,
                    work.x.stride, b, Packed.STEP, c, 4L * work.y.stride(), steps, count, bSliver, mask, 1);
    }

    /// Adds the corrections of a tile's rows.
    ///
    /// @param turned addresses of the transposed factors; empty: the factors are read in place
    private static void correct(Work work, List<Long> turned, int row, int rows, int sliver, int count) {
        for (int i = 0; i < work.segments.size(); i++) {
            var segment = work.segments.get(i);
            int from = Math.max(row, segment.from);
            int end = Math.min(row + rows, segment.end);
            if (from >= end || segment.correction.isEmpty()) continue;
            var low = segment.correction.get().low();
            var factor = segment.correction.get().factor();
            long a = low.memory().address() + 4L * (from - segment.from) * low.stride();
            long b = turned.isEmpty() ? factor.memory().address() + 4L * SLIVER * sliver : turned.get(i);
            long c = work.y.memory().address() + 4 * ((long) from * work.y.stride() + sliver * SLIVER);
            // the part of the factor's row for the next sliver follows the one for this sliver
            boolean ahead = turned.isEmpty() && end - from <= FEW;
            Kernels.call(Kernels.gemm(end - from, 2, Left.ROWS, Right.FLOATS, Result.ADD, ahead), a,
                    4L * low.stride(), b,
                    turned.isEmpty() ? 4L * factor.stride() : (long) Packed.STEP * count, c,
                    4L * work.y.stride(),
                    low.columns(), count, 4L * SLIVER,
                    GemmKernel.mask(work.y.columns() - (sliver + count - 1) * SLIVER), 1, Packed.STEP);
        }
    }

    // ---- left factors ----

    /// x with one zero after each row.
    private Rows evened(HostTensor x) {
        int n = x.columns();
        long stride = 4L * (n + 1);
        var to = left.atLeast(x.rows() * stride);
        for (int row = 0; row < x.rows(); row++) {
            MemorySegment.copy(x.memory(), 4L * row * x.stride(), to, row * stride, 4L * n);
            to.set(ValueLayout.JAVA_FLOAT, row * stride + 4L * n, 0);
        }
        return new Rows(to.address(), stride, 0);
    }

    /// x rounded to bf16, followed by the rounded remainder if activations are split.
    private Rows halves(HostTensor x, boolean split) {
        int n = x.columns();
        long stride = 2L * ((n + 31) / 32 * 32);
        long bytes = x.rows() * stride;
        long to = left.atLeast(split ? 2 * bytes : bytes).address();
        var kind = split ? RowKernel.Kind.HALVES_AND_REST : RowKernel.Kind.HALVES;
        pool.rows(x.rows(), n, 4, (row, _) -> Kernels.along(kind, to + row * stride,
                x.memory().address() + 4L * row * x.stride(), to + bytes + row * stride, 0, 0, n));
        return new Rows(to, stride, split ? bytes : 0);
    }

    // ---- products of tensors ----

    @Override public void multiplyBy(HostTensor y, HostTensor x, HostTensor b, float s, boolean add) {
        require(y.columns() == b.columns() && x.columns() == b.rows() && y.rows() == x.rows(),
                "shapes of y = x·b");
        product(y, x, b.memory().address(), 4L * b.stride(), s, add);
    }

    /// Rows `from` to `end` of every `step`th product of a group, from product `first`.
    private record Share(HostGroup group, int from, int end, int first, int step) {}

    @Override public void multiplyByEach(List<HostGroup> groups) {
        var shares = new ArrayList<Share>();
        long operations = 0;
        for (var group : groups) {
            var x = group.x();
            int n = group.ys().size();
            for (int i = 0; i < n; i++) {
                var y = group.ys().get(i);
                var b = group.bs().get(i);
                require(y.columns() == b.columns() && x.columns() == b.rows() && y.rows() == x.rows(),
                        "shapes of y = x·b");
                operations += Math.max(x.rows(), READING) * b.elements();
            }
            int each = 4 * GemmKernel.ROWS;
            // with few rows, reading the factors takes most of the time
            int apart = x.rows() < each * pool.size() ? n : 1;
            for (int row = 0; row < x.rows(); row += each)
                for (int i = 0; i < apart; i++)
                    shares.add(new Share(group, row, Math.min(x.rows(), row + each), i, apart));
        }
        pool.run(shares.size(), operations, (task, _) -> {
            var share = shares.get(task);
            var g = share.group;
            for (int row = share.from; row < share.end; row += GemmKernel.ROWS)
                for (int i = share.first; i < g.ys().size(); i += share.step)
                    rows(g.ys().get(i), g.x(), row, Math.min(GemmKernel.ROWS, share.end - row),
                            g.bs().get(i).memory().address(), 4L * g.bs().get(i).stride(), 0,
                            Integer.MAX_VALUE, g.s(),
                            g.s() == 1 ? Result.WRITE : Result.SCALE);
        });
    }

    @Override public void multiplyByTransposed(HostTensor y, HostTensor x, HostTensor a, float s,
            boolean add) {
        require(y.columns() == a.rows() && x.columns() == a.columns() && y.rows() == x.rows(),
                "shapes of y = x·aᵀ");
        long stride = 4L * Transposes.padded(a.rows());
        var to = turned.atLeast(Transposes.padded(a.columns()) * stride + 256);
        int each = 256;
        pool.run((a.columns() + each - 1) / each, 8L * a.elements(), (task, _) -> {
            int from = task * each;
            Transposes.transpose(to.asSlice(from * stride), stride,
                    a.columns(from, Math.min(each, a.columns() - from)));
        });
        product(y, x, to.address(), stride, s, add);
    }

    /// y ← (or +=) s·x·b, rows of b `step` bytes apart.
    private void product(HostTensor y, HostTensor x, long b, long step, float s, boolean add) {
        if (x.rows() == 0) return;
        int slivers = (y.columns() + SLIVER - 1) / SLIVER;
        int each = Math.min(slivers, PANEL);
        int wide = (slivers + each - 1) / each;
        var result = add ? s == 1 ? Result.ADD : Result.ADD_SCALED : s == 1 ? Result.WRITE : Result.SCALE;
        int height = 4 * GemmKernel.ROWS;
        int tall = (x.rows() + height - 1) / height;
        pool.run(wide * tall, (long) x.rows() * x.columns() * y.columns(), (task, _) -> {
            int end = Math.min(x.rows(), (task % tall + 1) * height);
            for (int row = task % tall * height; row < end; row += GemmKernel.ROWS)
                rows(y, x, row, Math.min(GemmKernel.ROWS, end - row), b, step, task / tall * each, each, s,
                        result);
        });
    }

    /// A tile of rows and `most` slivers from sliver `first`.
    private static void rows(HostTensor y, HostTensor x, int row, int rows, long b, long step, int first,
            int most,
            float s,
            Result result) {
        int columns = y.columns();
        int vectors = columns <= SLIVER / 2 ? 1 : 2;
        int width = 16 * vectors;
        int count = Math.min(most, (columns + width - 1) / width - first);
        long column = 4L * width * first;
        Kernels.call(Kernels.gemm(rows, vectors, Left.ROWS, Right.FLOATS, result, x.rows() <= FEW),
                x.memory().address() + 4L * row * x.stride(), 4L * x.stride(), b + column, step,
                y.memory().address() + 4L * row * y.stride() + column, 4L * y.stride(), x.columns(), count,
                4L * width, GemmKernel.mask(columns - (first + count - 1) * width), s, AHEAD);
    }

    @Override public void outerAdd(HostTensor g, HostTensor y, HostTensor x, float s) {
        require(g.rows() == y.columns() && g.columns() == x.columns() && y.rows() == x.rows(),
                "shapes of g += yᵀ·x");
        if (x.rows() == 0) return;
        // the wider factor is read row by row
        if (y.columns() > x.columns() && s == 1) turnedOuter(g, x, y);
        else outer(g.memory().address(), 4L * g.stride(), y, x, s == 1 ? Result.ADD : Result.ADD_SCALED, s,
                NOTHING);
    }

    /// g += (narrowᵀ·wide)ᵀ: g is transposed, the sum is added, and g is transposed back.
    private void turnedOuter(HostTensor g, HostTensor narrow, HostTensor wide) {
        int ranks = narrow.columns();
        long stride = 4L * Transposes.padded(wide.columns());
        var turned = new HostTensor(outer.atLeast(Transposes.padded(ranks) * stride), ranks, wide.columns(),
                (int) (stride / 4));
        outer(turned.memory().address(), stride, narrow, wide, Result.ADD, 1, new Between() {
            @Override public void before(int column, int end) {
                Transposes.transpose(turned.memory().asSlice(4L * column), stride, g.rows(column,
                        end - column));
            }

            @Override public void after(int column, int end) {
                Transposes.transpose(g.rows(column, end - column).memory(), 4L * g.stride(),
                        turned.columns(column, end - column));
            }
        });
    }

    /// An operation on columns `column` to `end` of the result, before or after a sum over tokens.
    private interface Between {
        void before(int column, int end);

        void after(int column, int end);
    }

    private static final Between NOTHING = new Between() {
        @Override public void before(int column, int end) {}

        @Override public void after(int column, int end) {}
    };

    /// g += narrowᵀ·wide, times s if scaled: a block of tokens and columns stays in the L1 cache for all rows
    /// of g.
    private void outer(long g, long gStride, HostTensor narrow, HostTensor wide, Result result, float s,
            Between between) {
        int columns = wide.columns();
        int vectors = columns <= SLIVER / 2 ? 1 : 2;
        int width = 16 * vectors;
        int slivers = (columns + width - 1) / width;
        int each = Math.clamp(slivers / (TASKS * pool.size()), 1, PANEL);
        int tiles = (narrow.columns() + GemmKernel.ROWS - 1) / GemmKernel.ROWS;
        int height = (narrow.columns() + tiles - 1) / tiles;
        pool.run((slivers + each - 1) / each, (long) wide.rows() * narrow.columns() * columns, (task, _) -> {
            int last = Math.min(slivers, (task + 1) * each);
            between.before(task * each * width, Math.min(columns, last * width));
            for (int token = 0; token < wide.rows(); token += TOKENS)
                for (int sliver = task * each; sliver < last; sliver++)
                    for (int row = 0; row < narrow.columns(); row += height)
                        Kernels.call(Kernels.gemm(Math.min(height, narrow.columns() - row), vectors,
                                        Left.COLUMNS,
                                        Right.FLOATS, result),
                                narrow.memory().address() + 4 * ((long) token * narrow.stride() + row),
                                4L * narrow.stride(),
                                wide.memory().address() + 4 * ((long) token * wide.stride() + sliver * width),
                                4L * wide.stride(), g + row * gStride + 4L * sliver * width, gStride,
                                Math.min(TOKENS, wide.rows() - token), 1, 0,
                                GemmKernel.mask(columns - sliver * width),
                                s);
            between.after(task * each * width, Math.min(columns, last * width));
        });
    }

    @Override public void close() {
        frozen.close();
        left.close();
        turned.close();
        outer.close();
        for (var buffer : panels) buffer.close();
        for (var buffer : factors) buffer.close();
    }
}
