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
    /// Sets of queries that a task leads through the blocks of keys together: each block is turned, and comes
    /// into the nearer caches, once for all of them, whose sums the caches hold as well.
    private static final int SETS = 8;
    /// Tasks that each thread finds at least, where there are so many.
    private static final int TASKS = 4;
    /// Keys that share a pass over the queries when sums over queries are taken.
    private static final int KEYS = 13;
    private static final ValueLayout.OfFloat FLOAT = ValueLayout.JAVA_FLOAT;

    /// Queries `from` and after of a span, all heads of one key-value head; several of them for one query.
    private record Task(Span span, int from, int count, int kvHead, int kvHeads) {
        Task at(int head) {
            return new Task(span, from, count, head, 1);
        }
    }

    /// Up to [#BLOCK] queries of a task that see the same keys but for their positions: those of one head, or
    /// of one position.
    ///
    /// @param row of the first
    /// @param head of the first
    /// @param first its position; the next one's is `step` behind
    /// @param begin block of the first key that one of them sees
    private record Queries(int row, int head, int count, int first, int step, int begin) {
        int position(int i) {
            return first + i * step;
        }

        /// Behind the last key that one of them sees.
        int end() {
            return position(count - 1) + 1;
        }

        int row(int i) {
            return row + i * step;
        }

        int head(int i) {
            return step == 0 ? head + i : head;
        }

        boolean sees(int block) {
            return begin <= block && block * BLOCK < end();
        }

        /// How many keys of a block lie before the end.
        int keys(int block) {
            return Math.min(BLOCK, end() - block * BLOCK);
        }

        long address(Tensor t, int dim) {
            return at(t, row, head * dim);
        }

        /// Bytes from one to the next.
        long stride(Tensor t, int dim) {
            return step == 0 ? 4L * dim : 4L * t.stride();
        }
    }

    /// The queries of a task, tile by tile and in it head by head.
    ///
    /// @param across whether one position's are taken together, across heads
    private static List<Queries> queries(Task task, AttentionShape shape, boolean across) {
        int group = shape.heads() / shape.kvHeads();
        var all = new ArrayList<Queries>();
        for (int from = task.from; from < task.from + task.count; from += BLOCK) {
            int count = Math.min(BLOCK, task.from + task.count - from);
            int first = task.span.position() + from;
            int begin = CpuAttention.from(first, shape.window()) / BLOCK;
            int row = task.span.row() + from;
            if (across) all.add(new Queries(row, task.kvHead * group, group, first, 0, begin));
            else for (int h = 0; h < group; h++)
                all.add(new Queries(row, task.kvHead * group + h, count, first, 1, begin));
        }
        return all;
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

    /// Address of what the queries see of block b.
    private static long masks(MemorySegment to, Queries queries, int b, int window) {
        for (int i = 0; i < queries.count; i++)
            to.set(ValueLayout.JAVA_LONG, 8L * i, visible(queries.position(i), b, window));
        return to.address();
    }

    /// Tiles that a task takes, so that every thread finds some tasks.
    private int tiles(List<Span> spans, AttentionShape shape) {
        long tiles = 0;
        for (var span : spans) tiles += (span.count() + BLOCK - 1) / BLOCK;
        return Math.clamp(tiles * shape.kvHeads() / (TASKS * pool.size()), 1,
                Math.max(1, SETS * shape.kvHeads() / shape.heads()));
    }

    // ---- forward ----

    @Override public void forward(Tensor out, Tensor lse, Tensor q, List<Span> spans, AttentionShape shape) {
        CpuAttention.check(q, spans, shape);
        var tasks = new ArrayList<Task>();
        int each = BLOCK * tiles(spans, shape);
        long operations = 0;
        for (var span : spans)
            for (int from = 0; from < span.count(); from += each) {
                int count = Math.min(each, span.count() - from);
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

    /// Some tiles of queries of all heads that share a key-value head, from the first visible block to the
    /// last.
    private record Forward(Tensor out, Tensor lse, Tensor q, Task task, AttentionShape shape, Space space) {
        private long sumStride() {
            return 4L * Transposes.padded(shape.headDim());
        }

        void run() {
            int dim = shape.headDim();
            var sets = queries(task, shape, task.count == 1);
            // all but the last are full
            int each = sets.getFirst().count;
            int all = sets.size() * each;
            var sums = space.sums.atLeast(all * sumStride());
            var rows = space.rows.atLeast(4L * 3 * all);
            long totals = 4L * all;
            for (int i = 0; i < all; i++) {
                rows.set(FLOAT, 4L * i, Float.NEGATIVE_INFINITY);
                rows.set(FLOAT, totals + 4L * i, 0);
            }
            var masks = space.masks.atLeast(8L * each);
            long scores = space.scores.atLeast((long) ROW * each).address();
            var keys = space.keys.atLeast((long) ROW * Transposes.padded(dim));
            int end = sets.getLast().end();
            for (int b = sets.getFirst().begin; b * BLOCK < end; b++) {
                turn(keys, Span.head(task.span.keys().get(b), task.kvHead, shape),
                        Math.min(BLOCK, end - b * BLOCK));
                var values = Span.head(task.span.values().get(b), task.kvHead, shape);
                for (int s = 0; s < sets.size(); s++) {
                    var queries = sets.get(s);
                    if (!queries.sees(b)) continue;
                    int n = queries.count;
                    int valid = queries.keys(b);
                    boolean more = b > queries.begin;
                    long state = rows.address() + 4L * s * each;
                    long sum = sums.address() + s * each * sumStride();
                    product(n, Result.SCALE, queries.address(q, dim), queries.stride(q, dim), keys.address(),
                            ROW, scores, ROW, dim, valid, shape.scale());
                    Kernels.rows(Kernels.of(RowKernel.Kind.ABSORB), scores, state, state + totals,
                            state + 2 * totals, masks(masks, queries, b, shape.window()), n, 0, 0);
                    if (more) Kernels.rows(Kernels.of(RowKernel.Kind.SCALE_ROWS), sum, state + 2 * totals,
                            sumStride() / 64, sumStride(), 0, n, 0, 0);
                    product(n, more ? Result.ADD : Result.WRITE, scores, ROW, at(values, 0, 0),
                            4L * values.stride(), sum, sumStride(), valid, dim, 1);
                }
            }
            for (int s = 0; s < sets.size(); s++) store(sets.get(s), sums, rows, s * each, all);
        }

        private void store(Queries queries, MemorySegment sums, MemorySegment rows, int at, int all) {
            int dim = shape.headDim();
            for (int i = 0; i < queries.count; i++) {
                float total = rows.get(FLOAT, 4L * (all + at + i));
                lse.memory().set(FLOAT, 4 * ((long) queries.row(i) * lse.stride() + queries.head(i)),
                        (float) (rows.get(FLOAT, 4L * (at + i)) + Math.log(total)));
                rows.set(FLOAT, 4L * (2 * all + at + i), 1 / total);
            }
            long from = at * sumStride();
            Kernels.rows(Kernels.of(RowKernel.Kind.SCALE_ROWS), sums.address() + from,
                    rows.address() + 4L * (2 * all + at), sumStride() / 64, sumStride(), 0, queries.count, 0,
                    0);
            for (int i = 0; i < queries.count; i++)
                MemorySegment.copy(sums, from + i * sumStride(), out.memory(),
                        4 * ((long) queries.row(i) * out.stride() + queries.head(i) * dim), 4L * dim);
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
            for (int h = 0; h < shape.kvHeads(); h++) tasks.add(new Task(span, 0, span.count(), h, 1));
        }
        pool.run(tasks.size(), operations, (i, member) ->
                new Backward(dq, dk, dv, dout, out, lse, q, tasks.get(i), shape, spaces[member]).run());
    }

    /// The gradients of one span and key-value head: some tiles of queries at a time, in order, and for them
    /// the blocks of keys. A block's gradients take their terms in the order of the queries.
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
            int together = BLOCK * Math.max(1, SETS * shape.kvHeads() / shape.heads());
            for (int from = 0; from < task.count; from += together)
                tiles(new Task(task.span, from, Math.min(together, task.count - from), task.kvHead, 1), keys,
                        values, each);
        }

        private void tiles(Task part, MemorySegment keys, MemorySegment values, long each) {
            var sets = queries(part, shape, false);
            var rows = space.rows.atLeast(8L * BLOCK * sets.size());
            for (int s = 0; s < sets.size(); s++) begin(sets.get(s), rows, 8L * BLOCK * s);
            for (int b = sets.getFirst().begin; b * BLOCK < sets.getLast().end(); b++)
                for (int s = 0; s < sets.size(); s++)
                    if (sets.get(s).sees(b)) block(sets.get(s), b, keys.address() + b * each,
                            values.address() + b * each, rows.address() + 8L * BLOCK * s);
        }

        /// Of each query its lse, and behind those the products of its result and the result's gradient.
        private void begin(Queries queries, MemorySegment rows, long to) {
            int dim = shape.headDim();
            Kernels.rows(Kernels.of(RowKernel.Kind.DOT_ROWS), queries.address(dout, dim), 4L * dout.stride(),
                    queries.address(out, dim), 4L * out.stride(), rows.address() + to + 4L * BLOCK,
                    queries.count, dim / 16, (1L << dim % 16) - 1);
            for (int i = 0; i < queries.count; i++)
                rows.set(FLOAT, to + 4L * i, lse.memory().get(FLOAT,
                        4 * ((long) queries.row(i) * lse.stride() + queries.head)));
        }

        private void block(Queries queries, int b, long keys, long values, long rows) {
            int dim = shape.headDim();
            int count = queries.count;
            int valid = queries.keys(b);
            long scores = space.scores.atLeast((long) ROW * BLOCK).address();
            long slopes = space.more.atLeast((long) ROW * BLOCK).address();
            product(count, Result.SCALE, queries.address(q, dim), 4L * q.stride(), keys, ROW, scores, ROW,
                    dim, valid, shape.scale());
            product(count, Result.WRITE, queries.address(dout, dim), 4L * dout.stride(), values, ROW, slopes,
                    ROW, dim, valid, 1);
            Kernels.rows(Kernels.of(RowKernel.Kind.WEIGH), scores, slopes, rows, rows + 4L * BLOCK,
                    masks(space.masks.atLeast(8L * BLOCK), queries, b, shape.window()), count,
                    Float.floatToRawIntBits(shape.scale()) & 0xffffffffL, 0);
            overQueries(dv, scores, dout, b, queries);
            overQueries(dk, slopes, q, b, queries);
            var block = Span.head(task.span.keys().get(b), task.kvHead, shape);
            product(count, b > queries.begin ? Result.ADD : Result.WRITE, slopes, ROW, at(block, 0, 0),
                    4L * block.stride(), queries.address(dq, dim), 4L * dq.stride(), valid, dim, 1);
        }

        /// Rows of block b of `to` += weightsᵀ·x over the queries; those before a key do not see it.
        private void overQueries(Tensor to, long weights, Tensor x, int b, Queries queries) {
            int dim = shape.headDim();
            int slivers = (dim + SLIVER - 1) / SLIVER;
            int valid = queries.keys(b);
            for (int key = 0; key < valid; key += KEYS) {
                int n = Math.min(KEYS, valid - key);
                int skipped = Math.clamp(b * BLOCK + key - queries.first, 0, queries.count - 1);
                Kernels.call(Kernels.gemm(n, 2, Left.COLUMNS, Right.FLOATS, Result.ADD),
                        weights + (long) skipped * ROW + 4L * key, ROW,
                        at(x, queries.row(skipped), queries.head * dim), 4L * x.stride(),
                        at(to, task.span.row() + b * BLOCK + key, task.kvHead * dim), 4L * to.stride(),
                        queries.count - skipped, slivers, 4L * SLIVER,
                        GemmKernel.mask(dim - (slivers - 1) * SLIVER), 1);
            }
        }
    }

    @Override public void close() {
        for (var space : spaces) space.close();
    }
}
