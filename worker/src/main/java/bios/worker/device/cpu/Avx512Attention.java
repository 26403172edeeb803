package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.AttentionShape;
import bios.worker.device.Span;
import bios.worker.device.Tensor;
import bios.worker.device.cpu.GemmKernel.Left;
import bios.worker.device.cpu.GemmKernel.Result;
import bios.worker.device.cpu.GemmKernel.Right;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/// Attention by this package's machine code: up to 64 queries of a head against one block of 64 keys at a
/// time, in the order of the blocks. Every step of a query is its own row's, so tiles are not seen in the
/// result, and a query has the same bits in training, in prefill and alone. What a row does not see is left
/// out where that is a whole vector or step, and masked otherwise; both add exact zeros. The formulas are
/// those of [bios.worker.kernel.Attention].
final class Avx512Attention implements CpuAttention {
    private static final int BLOCK = Span.BLOCK;
    private static final int SLIVER = Packed.SLIVER;
    /// Bytes of a row of scores, and of a step of transposed keys.
    private static final int ROW = 4 * BLOCK;
    /// Turning a block of keys takes as long as so many queries.
    private static final int READING = 16;
    /// Heads that a task takes where each has one query only.
    private static final int TOGETHER = 4;
    /// Keys that share a pass over the queries when sums over queries are taken.
    private static final int KEYS = 13;
    private static final ValueLayout.OfFloat FLOAT = ValueLayout.JAVA_FLOAT;

    /// Queries `from` and after of a span, all heads of one key-value head; several of them for one query.
    private record Task(Span span, int from, int count, int kvHead, int kvHeads) {
        Task(Span span, int from, int count, int kvHead) {
            this(span, from, count, kvHead, 1);
        }

        Task at(int head) {
            return new Task(span, from, count, head);
        }
    }

    /// Rows of queries: addresses `stride` bytes apart, positions `step` apart.
    private record Queries(int first, int count, int step) {
        int position(int row) {
            return first + row * step;
        }
    }

    /// Buffers of one member of the pool.
    private static final class Space implements AutoCloseable {
        final NativeBuffer keys = new NativeBuffer();
        final NativeBuffer values = new NativeBuffer();
        final NativeBuffer scores = new NativeBuffer();
        final NativeBuffer more = new NativeBuffer();
        final NativeBuffer sums = new NativeBuffer();
        final NativeBuffer rows = new NativeBuffer();
        final NativeBuffer masks = new NativeBuffer();

        @Override public void close() {
            for (var buffer : List.of(keys, values, scores, more, sums, rows, masks)) buffer.close();
        }
    }

    private final Pool pool;
    private final Space[] spaces;

    Avx512Attention(Pool pool) {
        this.pool = pool;
        spaces = new Space[pool.size()];
        for (int i = 0; i < spaces.length; i++) spaces[i] = new Space();
    }

    private static long at(Tensor t, int row, int column) {
        return t.memory().address() + 4 * ((long) row * t.stride() + column);
    }

    /// c ← or += factor·a·b for `rows` rows in tiles, `width` columns.
    private static void product(int rows, Result result, long a, long aStride, long b, long bStep, long c,
            long cStride, int steps, int width, float factor) {
        int slivers = (width + SLIVER - 1) / SLIVER;
        for (int row = 0; row < rows; row += GemmKernel.ROWS) {
            int n = Math.min(GemmKernel.ROWS, rows - row);
            Kernels.call(Kernels.gemm(n, 2, Left.ROWS, Right.FLOATS, result), a + row * aStride, aStride,
                    b, bStep,
                    c + row * cStride, cStride, steps, slivers, 4L * SLIVER,
                    GemmKernel.mask(width - (slivers - 1) * SLIVER), factor);
        }
    }

    /// to ← the transpose of one head's keys in a block `[dim, BLOCK]`. Rows behind the last one are turned
    /// as well where there is memory: nobody sees them.
    private static void turn(MemorySegment to, Tensor head, int valid) {
        int whole = Transposes.padded(valid);
        int rows = 4L * whole * head.stride() <= head.memory().byteSize() ? whole : valid;
        Transposes.transpose(to, ROW, new Tensor(head.memory(), rows, head.columns(), head.stride()));
    }

    /// The keys of block b that the query at `position` sees, as bits.
    private static long visible(int position, int b, int window) {
        int low = Math.max(0, CpuAttention.from(position, window) - b * BLOCK);
        int high = Math.min(BLOCK, position + 1 - b * BLOCK);
        if (low >= high) return 0;
        return (high == BLOCK ? -1L : (1L << high) - 1) & -1L << low;
    }

    private static void masks(MemorySegment to, Queries queries, int b, int window) {
        for (int i = 0; i < queries.count; i++)
            to.set(ValueLayout.JAVA_LONG, 8L * i, visible(queries.position(i), b, window));
    }

    // ---- forward ----

    @Override public void forward(Tensor out, Tensor lse, Tensor q, List<Span> spans, AttentionShape shape) {
        CpuAttention.check(q, spans, shape);
        var tasks = new ArrayList<Task>();
        long operations = 0;
        for (var span : spans)
            for (int from = 0; from < span.count(); from += BLOCK) {
                int count = Math.min(BLOCK, span.count() - from);
                int together = count == 1 ? TOGETHER : 1;
                for (int h = 0; h < shape.kvHeads(); h += together)
                    tasks.add(new Task(span, from, count, h, Math.min(together, shape.kvHeads() - h)));
                operations += 2L * (count + READING) * (span.position() + from + count) * q.columns();
            }
        pool.run(tasks.size(), operations, (i, member) -> {
            var task = tasks.get(i);
            for (int h = task.kvHead; h < task.kvHead + task.kvHeads; h++)
                new Forward(out, lse, q, task.at(h), shape, spaces[member]).run();
        });
    }

    /// One tile of queries of all heads that share a key-value head, from its first visible block to its
    /// last.
    private record Forward(Tensor out, Tensor lse, Tensor q, Task task, AttentionShape shape, Space space) {
        private int group() {
            return shape.heads() / shape.kvHeads();
        }

        private long sumStride() {
            return 4L * Transposes.padded(shape.headDim());
        }

        void run() {
            int dim = shape.headDim();
            int first = task.span.position() + task.from;
            int end = first + task.count;
            // one query: the heads are the rows; else the rows of a head are
            boolean alone = task.count == 1;
            int sets = alone ? 1 : group();
            var queries = alone ? new Queries(first, group(), 0) : new Queries(first, task.count, 1);
            int each = queries.count;
            var sums = space.sums.atLeast(sets * each * sumStride());
            var rows = space.rows.atLeast(4L * 3 * sets * each);
            long totals = 4L * sets * each;
            for (int i = 0; i < sets * each; i++) {
                rows.set(FLOAT, 4L * i, Float.NEGATIVE_INFINITY);
                rows.set(FLOAT, totals + 4L * i, 0);
            }
            var masks = space.masks.atLeast(8L * each);
            var scores = space.scores.atLeast((long) ROW * each);
            var keys = space.keys.atLeast((long) ROW * Transposes.padded(dim));
            int low = CpuAttention.from(first, shape.window()) / BLOCK;
            for (int b = low; b * BLOCK < end; b++) {
                int valid = Math.min(BLOCK, end - b * BLOCK);
                turn(keys, Span.head(task.span.keys().get(b), task.kvHead, shape), valid);
                masks(masks, queries, b, shape.window());
                for (int set = 0; set < sets; set++) {
                    long state = rows.address() + 4L * set * each;
                    long sum = sums.address() + set * each * sumStride();
                    product(each, Result.SCALE, query(set, alone), stride(alone), keys.address(), ROW,
                            scores.address(), ROW, dim, valid, shape.scale());
                    Kernels.rows(Kernels.of(RowKernel.Kind.ABSORB), scores.address(), state, state + totals,
                            state + 2 * totals, masks.address(), each, 0, 0);
                    if (b > low) Kernels.rows(Kernels.of(RowKernel.Kind.SCALE_ROWS), sum, state + 2 * totals,
                            sumStride() / 64, sumStride(), 0, each, 0, 0);
                    var values = Span.head(task.span.values().get(b), task.kvHead, shape);
                    product(each, b > low ? Result.ADD : Result.WRITE, scores.address(), ROW,
                            at(values, 0, 0), 4L * values.stride(), sum, sumStride(), valid, dim, 1);
                }
            }
            store(sums, rows, sets * each, alone);
        }

        private long query(int set, boolean alone) {
            return at(q, task.span.row() + task.from,
                    (task.kvHead * group() + (alone ? 0 : set)) * shape.headDim());
        }

        private long stride(boolean alone) {
            return alone ? 4L * shape.headDim() : 4L * q.stride();
        }

        private void store(MemorySegment sums, MemorySegment rows, int n, boolean alone) {
            int dim = shape.headDim();
            for (int i = 0; i < n; i++) {
                float total = rows.get(FLOAT, 4L * (n + i));
                int row = task.span.row() + task.from + (alone ? 0 : i % task.count);
                int head = task.kvHead * group() + (alone ? i : i / task.count);
                lse.memory().set(FLOAT, 4 * ((long) row * lse.stride() + head),
                        (float) (rows.get(FLOAT, 4L * i) + Math.log(total)));
                rows.set(FLOAT, 4L * (2 * n + i), 1 / total);
            }
            Kernels.rows(Kernels.of(RowKernel.Kind.SCALE_ROWS), sums.address(), rows.address() + 8L * n,
                    sumStride() / 64, sumStride(), 0, n, 0, 0);
            for (int i = 0; i < n; i++) {
                int row = task.span.row() + task.from + (alone ? 0 : i % task.count);
                int head = task.kvHead * group() + (alone ? i : i / task.count);
                MemorySegment.copy(sums, i * sumStride(), out.memory(),
                        4 * ((long) row * out.stride() + head * dim), 4L * dim);
            }
        }
    }

    // ---- backward ----

    @Override public void backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse,
            Tensor q, List<Span> spans, AttentionShape shape) {
        CpuAttention.check(q, spans, shape);
        var tasks = new ArrayList<Task>();
        long operations = 0;
        for (var span : spans) {
            require(span.position() == 0, "a gradient needs the whole sequence");
            operations += 5L * span.count() * span.count() * q.columns();
            if (span.count() == 0) continue;
            for (int h = 0; h < shape.kvHeads(); h++) tasks.add(new Task(span, 0, span.count(), h));
        }
        pool.run(tasks.size(), operations, (i, member) ->
                new Backward(dq, dk, dv, dout, out, lse, q, tasks.get(i), shape, spaces[member]).run());
    }

    /// The gradients of one span and key-value head: tiles of queries in order, and for each the blocks of
    /// keys.
    private record Backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
            Task task, AttentionShape shape, Space space) {
        void run() {
            int dim = shape.headDim();
            int blocks = (task.count + BLOCK - 1) / BLOCK;
            long each = (long) ROW * Transposes.padded(dim);
            var keys = space.keys.atLeast(blocks * each);
            var values = space.values.atLeast(blocks * each);
            for (int b = 0; b < blocks; b++) {
                int valid = Math.min(BLOCK, task.count - b * BLOCK);
                turn(keys.asSlice(b * each), Span.head(task.span.keys().get(b), task.kvHead, shape), valid);
                turn(values.asSlice(b * each), Span.head(task.span.values().get(b), task.kvHead, shape),
                        valid);
            }
            for (int i = 0; i < task.count; i++)
                for (var to : List.of(dk, dv))
                    to.memory().asSlice(4 * ((long) (task.span.row() + i) * to.stride() + task.kvHead * dim),
                            4L * dim).fill((byte) 0);
            int group = shape.heads() / shape.kvHeads();
            for (int from = 0; from < task.count; from += BLOCK)
                for (int h = 0; h < group; h++)
                    tile(from, Math.min(BLOCK, task.count - from), task.kvHead * group + h, keys, values,
                            each);
        }

        private void tile(int from, int count, int head, MemorySegment keys, MemorySegment values,
                long each) {
            int dim = shape.headDim();
            int row = task.span.row() + from;
            int column = head * dim;
            var scores = space.scores.atLeast((long) ROW * BLOCK);
            var slopes = space.more.atLeast((long) ROW * BLOCK);
            var rows = space.rows.atLeast(8L * BLOCK);
            long deltas = rows.address() + 4L * BLOCK;
            Kernels.rows(Kernels.of(RowKernel.Kind.DOT_ROWS), at(dout, row, column), 4L * dout.stride(),
                    at(out, row, column), 4L * out.stride(), deltas, count, dim / 16, (1L << dim % 16) - 1);
            for (int i = 0; i < count; i++)
                rows.set(FLOAT, 4L * i,
                        lse.memory().get(FLOAT, 4 * ((long) (row + i) * lse.stride() + head)));
            var masks = space.masks.atLeast(8L * BLOCK);
            var queries = new Queries(from, count, 1);
            int low = CpuAttention.from(from, shape.window()) / BLOCK;
            for (int b = low; b * BLOCK < from + count; b++) {
                int valid = Math.min(BLOCK, from + count - b * BLOCK);
                masks(masks, queries, b, shape.window());
                product(count, Result.SCALE, at(q, row, column), 4L * q.stride(),
                        keys.address() + b * each, ROW, scores.address(), ROW, dim, valid, shape.scale());
                product(count, Result.WRITE, at(dout, row, column), 4L * dout.stride(),
                        values.address() + b * each, ROW, slopes.address(), ROW, dim, valid, 1);
                Kernels.rows(Kernels.of(RowKernel.Kind.WEIGH), scores.address(), slopes.address(),
                        rows.address(),
                        deltas, masks.address(), count,
                        Float.floatToRawIntBits(shape.scale()) & 0xffffffffL, 0);
                overQueries(dv, scores, dout, b, valid, from, count, column);
                overQueries(dk, slopes, q, b, valid, from, count, column);
                var block = Span.head(task.span.keys().get(b), task.kvHead, shape);
                product(count, b > low ? Result.ADD : Result.WRITE, slopes.address(), ROW,
                        at(block, 0, 0), 4L * block.stride(), at(dq, row, column), 4L * dq.stride(),
                        valid, dim, 1);
            }
        }

        /// Rows of block b of `to` += weightsᵀ·x over the queries; those before a key do not see it.
        private void overQueries(Tensor to, MemorySegment weights, Tensor x, int b, int valid, int from,
                int count,
                int column) {
            int dim = shape.headDim();
            int slivers = (dim + SLIVER - 1) / SLIVER;
            for (int key = 0; key < valid; key += KEYS) {
                int n = Math.min(KEYS, valid - key);
                int skipped = Math.clamp(b * BLOCK + key - from, 0, count - 1);
                Kernels.call(Kernels.gemm(n, 2, Left.COLUMNS, Right.FLOATS, Result.ADD),
                        weights.address() + (long) skipped * ROW + 4L * key, ROW,
                        at(x, task.span.row() + from + skipped, column), 4L * x.stride(),
                        at(to, task.span.row() + b * BLOCK + key, task.kvHead * dim), 4L * to.stride(),
                        count - skipped, slivers, 4L * SLIVER,
                        GemmKernel.mask(dim - (slivers - 1) * SLIVER), 1);
            }
        }
    }

    @Override public void close() {
        for (var space : spaces) space.close();
    }
}
