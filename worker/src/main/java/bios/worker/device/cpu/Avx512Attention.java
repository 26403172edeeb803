package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.AttentionShape;
import bios.worker.device.cpu.GemmKernel.Left;
import bios.worker.device.cpu.GemmKernel.Result;
import bios.worker.device.cpu.GemmKernel.Right;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/// Attention by this package's machine code: up to 64 queries of a head against one block of 64 keys at a
/// time, in the order of the blocks. Every operation works on one query's row, so tiles do not affect the
/// result, and a query has the same bits in training, prefill and decoding. Masked keys are skipped if they
/// form a whole vector or step, and masked otherwise; both add exact zeros. The formulas are those of
/// [bios.worker.kernel.Attention].
final class Avx512Attention implements CpuAttention {
    private static final int BLOCK = HostSpan.BLOCK;
    private static final int SLIVER = Packed.SLIVER;
    /// Bytes of a row of scores, and of a step of transposed keys.
    private static final int ROW = 4 * BLOCK;
    /// The cost of transposing a block of keys, in queries.
    private static final int READING = 16;
    /// Most heads of a task if each has only one query.
    private static final int TOGETHER = 4;
    /// Tiles of queries for which a task processes the blocks of keys together: each block is transposed and
    /// loaded into the caches once for all of them, and their sums fit into the caches as well.
    private static final int SETS = 8;
    /// Fewest tasks for each thread, if there are that many.
    private static final int TASKS = 4;
    /// Prefetch distance in rows.
    private static final int AHEAD = 16;
    /// Keys that share a pass over the queries in sums over queries.
    private static final int KEYS = 13;
    private static final ValueLayout.OfFloat FLOAT = ValueLayout.JAVA_FLOAT;

    /// The queries of a span from `from` on, for all heads of some key-value heads; of one key-value head if
    /// there are several queries.
    private record Task(HostSpan span, int from, int count, int kvHead, int kvHeads) {}

    /// Up to [#BLOCK] consecutive queries of a head.
    ///
    /// @param row row of the first query
    /// @param first position of the first query
    /// @param begin block of the first key that any of them attends to
    private record Queries(int row, int head, int count, int first, int begin) {
        int position(int i) {
            return first + i;
        }

        /// End (exclusive) of the keys that any of them attends to.
        int end() {
            return position(count - 1) + 1;
        }

        int row(int i) {
            return row + i;
        }

        boolean sees(int block) {
            return begin <= block && block * BLOCK < end();
        }

        /// Number of keys of a block before the end.
        int keys(int block) {
            return Math.min(BLOCK, end() - block * BLOCK);
        }

        long address(HostTensor t, int dim) {
            return at(t, row, head * dim);
        }
    }

    /// The queries of a task, tile by tile and within a tile head by head.
    private static List<Queries> queries(Task task, AttentionShape shape) {
        int group = shape.heads() / shape.kvHeads();
        var all = new ArrayList<Queries>();
        for (int from = task.from; from < task.from + task.count; from += BLOCK) {
            int count = Math.min(BLOCK, task.from + task.count - from);
            int first = task.span.position() + from;
            int begin = CpuAttention.from(first, shape.window()) / BLOCK;
            int row = task.span.row() + from;
            for (int h = 0; h < group; h++)
                all.add(new Queries(row, task.kvHead * group + h, count, first, begin));
        }
        return all;
    }

    /// Buffers of one thread of the pool.
    private static final class Space implements AutoCloseable {
        final NativeBuffer keys;
        final NativeBuffer values;
        final NativeBuffer scores;
        final NativeBuffer more;
        final NativeBuffer sums;
        final NativeBuffer rows;
        final NativeBuffer masks;

        Space(Memory memory) {
            keys = new NativeBuffer(memory);
            values = new NativeBuffer(memory);
            scores = new NativeBuffer(memory);
            more = new NativeBuffer(memory);
            sums = new NativeBuffer(memory);
            rows = new NativeBuffer(memory);
            masks = new NativeBuffer(memory);
        }

        @Override public void close() {
            for (var buffer : List.of(keys, values, scores, more, sums, rows, masks)) buffer.close();
        }
    }

    private final Pool pool;
    private final Space[] spaces;

    Avx512Attention(Pool pool, Memory memory) {
        this.pool = pool;
        spaces = new Space[pool.size()];
        for (int i = 0; i < spaces.length; i++) spaces[i] = new Space(memory);
    }

    private static long at(HostTensor t, int row, int column) {
        return t.memory().address() + 4 * ((long) row * t.stride() + column);
    }

    /// c ← or += factor·a·b for `rows` rows in tiles, `width` columns.
    private static void product(int rows, Result result, long a, long aStride, long b, long bStep, long c,
            long cStride, int steps, int width, float factor) {
        product(rows, result, a, aStride, b, bStep, c, cStride, steps, width, factor, 0);
    }

    /// The same; unless `ahead` is 0, the bytes of b at that distance after each row read are prefetched.
    private static void product(int rows, Result result, long a, long aStride, long b, long bStep, long c,
            long cStride, int steps, int width, float factor, long ahead) {
        int slivers = (width + SLIVER - 1) / SLIVER;
        for (int row = 0; row < rows; row += GemmKernel.ROWS) {
            int n = Math.min(GemmKernel.ROWS, rows - row);
            Kernels.call(Kernels.gemm(n, 2, Left.ROWS, Right.FLOATS, result, ahead != 0 && row == 0),
                    a + row * aStride, aStride, b, bStep, c + row * cStride, cStride, steps, slivers,
                    4L * SLIVER, GemmKernel.mask(width - (slivers - 1) * SLIVER), factor, ahead);
        }
    }

    /// to ← the transpose of one head's keys in a block `[dim, BLOCK]`. Rows after the last one are
    /// transposed as well if their memory exists: they are masked later.
    ///
    /// @param next address of the rows that are read next
    private static void turn(MemorySegment to, HostTensor head, int valid, long next) {
        int whole = Transposes.padded(valid);
        int rows = 4L * whole * head.stride() <= head.memory().byteSize() ? whole : valid;
        Transposes.transpose(to, ROW, new HostTensor(head.memory(), rows, head.columns(), head.stride()),
                next);
    }

    /// The keys of block b that the query at `position` attends to, as bits.
    private static long visible(int position, int b, int window) {
        int low = Math.max(0, CpuAttention.from(position, window) - b * BLOCK);
        int high = Math.min(BLOCK, position + 1 - b * BLOCK);
        if (low >= high) return 0;
        return (high == BLOCK ? -1L : (1L << high) - 1) & -1L << low;
    }

    /// Address of the masks of the queries for block b.
    private static long masks(MemorySegment to, Queries queries, int b, int window) {
        for (int i = 0; i < queries.count; i++)
            to.set(ValueLayout.JAVA_LONG, 8L * i, visible(queries.position(i), b, window));
        return to.address();
    }

    /// Tiles of a task, so that there are several tasks for every thread.
    private int tiles(List<HostSpan> spans, AttentionShape shape) {
        long tiles = 0;
        for (var span : spans) tiles += (span.count() + BLOCK - 1) / BLOCK;
        return Math.clamp(tiles * shape.kvHeads() / (TASKS * pool.size()), 1, most(shape));
    }

    /// Most tiles that are processed together.
    private static int most(AttentionShape shape) {
        return Math.max(1, SETS * shape.kvHeads() / shape.heads());
    }

    /// Heads of one query in a task, so that there are several tasks for every thread.
    private int together(int heads) {
        return Math.clamp(heads / (TASKS * pool.size()), 1, TOGETHER);
    }

    // ---- forward ----

    @Override public void forward(HostTensor out, HostTensor lse, HostTensor q, List<HostSpan> spans,
            AttentionShape shape) {
        CpuAttention.check(q, spans, shape);
        var tasks = new ArrayList<Task>();
        int each = BLOCK * tiles(spans, shape);
        long operations = 0;
        for (var span : spans)
            for (int from = 0; from < span.count(); from += each) {
                int count = Math.min(each, span.count() - from);
                int together = count > 1 ? 1 : together(spans.size() * shape.kvHeads());
                for (int h = 0; h < shape.kvHeads(); h += together)
                    tasks.add(new Task(span, from, count, h, Math.min(together, shape.kvHeads() - h)));
                operations += 2L * (count + READING) * (span.position() + from + count) * q.columns();
            }
        pool.run(tasks.size(), operations, (i, member) -> {
            var task = tasks.get(i);
            if (task.count == 1) new Single(out, lse, q, task, shape, spaces[member]).run();
            else new Forward(out, lse, q, task, shape, spaces[member]).run();
        });
    }

    /// The running softmax state of several queries.
    ///
    /// @param sums weighted sums of values, `stride` bytes apart
    /// @param rows for each query the maximum score, then the totals of weights, then the factors by which
    ///     the next block rescales the sums
    private record Seen(int count, MemorySegment sums, long stride, MemorySegment rows) {
        static Seen nothing(int count, int dim, Space space) {
            long stride = 4L * Transposes.padded(dim);
            var rows = space.rows.atLeast(4L * 3 * count);
            for (int i = 0; i < count; i++) {
                rows.set(FLOAT, 4L * i, Float.NEGATIVE_INFINITY);
                rows.set(FLOAT, 4L * (count + i), 0);
            }
            return new Seen(count, space.sums.atLeast(count * stride), stride, rows);
        }

        long sum(int i) {
            return sums.address() + i * stride;
        }

        /// Scores of the queries from `from` on become weights; their earlier sums are rescaled to the new
        /// maxima.
        ///
        /// @param masks the visible keys of the block for each query
        /// @param more whether this is not their first block
        void absorb(int from, int n, long scores, long masks, boolean more) {
            long state = rows.address() + 4L * from;
            Kernels.rows(Kernels.of(RowKernel.Kind.ABSORB), scores, state, state + 4L * count,
                    state + 8L * count, masks, n, 0, 0);
            if (more) Kernels.rows(Kernels.of(RowKernel.Kind.SCALE_ROWS), sum(from), state + 8L * count,
                    stride / 64, stride, 0, n, 0, 0);
        }

        /// Divides sums by totals.
        ///
        /// @return for each query the logarithm of the sum of its exponentials
        float[] end() {
            float[] lse = new float[count];
            for (int i = 0; i < count; i++) {
                float total = rows.get(FLOAT, 4L * (count + i));
                lse[i] = (float) (rows.get(FLOAT, 4L * i) + Math.log(total));
                rows.set(FLOAT, 4L * (2 * count + i), 1 / total);
            }
            Kernels.rows(Kernels.of(RowKernel.Kind.SCALE_ROWS), sum(0), rows.address() + 8L * count,
                    stride / 64, stride, 0, count, 0, 0);
            return lse;
        }

        void store(int i, HostTensor out, int row, int head, int dim) {
            MemorySegment.copy(sums, i * stride, out.memory(), 4 * ((long) row * out.stride() + head * dim),
                    4L * dim);
        }
    }

    /// One query of some heads: most of the time it reads keys and values from memory, each once.
    private record Single(HostTensor out, HostTensor lse, HostTensor q, Task task, AttentionShape shape,
            Space space) {
        void run() {
            int dim = shape.headDim();
            int group = shape.heads() / shape.kvHeads();
            int row = task.span.row() + task.from;
            int position = task.span.position() + task.from;
            int heads = group * task.kvHeads;
            var seen = Seen.nothing(heads, dim, space);
            var masks = space.masks.atLeast(8L * heads);
            long scores = space.scores.atLeast((long) ROW * heads).address();
            var turned = space.keys.atLeast((long) ROW * Transposes.padded(dim));
            int begin = CpuAttention.from(position, shape.window()) / BLOCK;
            int blocks = position / BLOCK + 1;
            for (int b = begin; b < blocks; b++) {
                int valid = Math.min(BLOCK, position + 1 - b * BLOCK);
                for (int h = 0; h < task.kvHeads; h++) {
                    var next = h + 1 < task.kvHeads ? keys(b, h + 1) : values(b, 0);
                    turn(turned, keys(b, h), valid, start(next));
                    product(group, Result.SCALE, at(q, row, (task.kvHead + h) * group * dim), 4L * dim,
                            turned.address(), ROW, scores + (long) h * group * ROW, ROW, dim, valid,
                            shape.scale());
                }
                long visible = visible(position, b, shape.window());
                for (int i = 0; i < heads; i++) masks.set(ValueLayout.JAVA_LONG, 8L * i, visible);
                seen.absorb(0, heads, scores, masks.address(), b > begin);
                for (int h = 0; h < task.kvHeads; h++) {
                    var next = h + 1 < task.kvHeads ? values(b, h + 1) : b + 1 < blocks ? keys(b + 1, 0)
                            : keys(begin, 0);
                    weigh(seen.sum(h * group), scores + (long) h * group * ROW, group, values(b, h), valid,
                            b > begin, start(next));
                }
            }
            float[] logs = seen.end();
            for (int i = 0; i < heads; i++) {
                int head = task.kvHead * group + i;
                lse.memory().set(FLOAT, 4 * ((long) row * lse.stride() + head), logs[i]);
                seen.store(i, out, row, head, dim);
            }
        }

        private HostTensor keys(int b, int h) {
            return HostSpan.head(task.span.keys().get(b), task.kvHead + h, shape);
        }

        private HostTensor values(int b, int h) {
            return HostSpan.head(task.span.values().get(b), task.kvHead + h, shape);
        }

        private static long start(HostTensor rows) {
            return at(rows, 0, 0);
        }

        /// sums += weights·values.
        ///
        /// @param next address of the rows that are read next
        private void weigh(long sums, long weights, int rows, HostTensor values, int valid, boolean more,
                long next) {
            int dim = shape.headDim();
            long stride = 4L * values.stride();
            long sumStride = 4L * Transposes.padded(dim);
            var result = more ? Result.ADD : Result.WRITE;
            int last = Math.min(AHEAD, valid);
            int first = valid - last;
            if (first > 0) product(rows, result, weights, ROW, start(values), stride, sums, sumStride, first,
                    dim, 1, AHEAD * stride);
            long rest = start(values) + first * stride;
            product(rows, first > 0 ? Result.ADD : result, weights + 4L * first, ROW, rest, stride, sums,
                    sumStride, last, dim, 1, next - rest);
        }
    }

    /// Some tiles of queries of all heads that share a key-value head, from the first visible block to the
    /// last.
    private record Forward(HostTensor out, HostTensor lse, HostTensor q, Task task, AttentionShape shape,
            Space space) {
        void run() {
            int dim = shape.headDim();
            var sets = queries(task, shape);
            // all except the last are full
            int each = sets.getFirst().count;
            var seen = Seen.nothing(sets.size() * each, dim, space);
            var masks = space.masks.atLeast(8L * each);
            long scores = space.scores.atLeast((long) ROW * each).address();
            var keys = space.keys.atLeast((long) ROW * Transposes.padded(dim));
            int end = sets.getLast().end();
            for (int b = sets.getFirst().begin; b * BLOCK < end; b++) {
                var values = HostSpan.head(task.span.values().get(b), task.kvHead, shape);
                turn(keys, HostSpan.head(task.span.keys().get(b), task.kvHead, shape),
                        Math.min(BLOCK, end - b * BLOCK), at(values, 0, 0));
                for (int s = 0; s < sets.size(); s++) {
                    var queries = sets.get(s);
                    if (!queries.sees(b)) continue;
                    int n = queries.count;
                    int valid = queries.keys(b);
                    boolean more = b > queries.begin;
                    product(n, Result.SCALE, queries.address(q, dim), 4L * q.stride(), keys.address(), ROW,
                            scores, ROW, dim, valid, shape.scale());
                    seen.absorb(s * each, n, scores, masks(masks, queries, b, shape.window()), more);
                    product(n, more ? Result.ADD : Result.WRITE, scores, ROW, at(values, 0, 0),
                            4L * values.stride(), seen.sum(s * each), seen.stride, valid, dim, 1);
                }
            }
            float[] logs = seen.end();
            for (int s = 0; s < sets.size(); s++) {
                var queries = sets.get(s);
                for (int i = 0; i < queries.count; i++) {
                    lse.memory().set(FLOAT, 4 * ((long) queries.row(i) * lse.stride() + queries.head),
                            logs[s * each + i]);
                    seen.store(s * each + i, out, queries.row(i), queries.head, dim);
                }
            }
        }
    }

    // ---- backward ----

    @Override public void backward(HostTensor dq, HostTensor dk, HostTensor dv, HostTensor dout,
            HostTensor out, HostTensor lse,
            HostTensor q, List<HostSpan> spans, AttentionShape shape) {
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
    private record Backward(HostTensor dq, HostTensor dk, HostTensor dv, HostTensor dout, HostTensor out,
            HostTensor lse, HostTensor q,
            Task task, AttentionShape shape, Space space) {
        void run() {
            int dim = shape.headDim();
            int blocks = (task.count + BLOCK - 1) / BLOCK;
            long each = (long) ROW * Transposes.padded(dim);
            var keys = space.keys.atLeast(blocks * each);
            var values = space.values.atLeast(blocks * each);
            for (int b = 0; b < blocks; b++) {
                int valid = Math.min(BLOCK, task.count - b * BLOCK);
                var block = HostSpan.head(task.span.values().get(b), task.kvHead, shape);
                turn(keys.asSlice(b * each), HostSpan.head(task.span.keys().get(b), task.kvHead, shape),
                        valid,
                        at(block, 0, 0));
                turn(values.asSlice(b * each), block, valid, at(block, 0, 0));
            }
            for (int i = 0; i < task.count; i++)
                for (var to : List.of(dk, dv))
                    to.memory().asSlice(4 * ((long) (task.span.row() + i) * to.stride() + task.kvHead * dim),
                            4L * dim).fill((byte) 0);
            int together = BLOCK * most(shape);
            for (int from = 0; from < task.count; from += together)
                tiles(new Task(task.span, from, Math.min(together, task.count - from), task.kvHead, 1), keys,
                        values, each);
        }

        private void tiles(Task part, MemorySegment keys, MemorySegment values, long each) {
            var sets = queries(part, shape);
            var rows = space.rows.atLeast(8L * BLOCK * sets.size());
            for (int s = 0; s < sets.size(); s++) begin(sets.get(s), rows, 8L * BLOCK * s);
            for (int b = sets.getFirst().begin; b * BLOCK < sets.getLast().end(); b++)
                for (int s = 0; s < sets.size(); s++)
                    if (sets.get(s).sees(b)) block(sets.get(s), b, keys.address() + b * each,
                            values.address() + b * each, rows.address() + 8L * BLOCK * s);
        }

        /// For each query its lse, then the dot products of its result and the result's gradient.
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
            var block = HostSpan.head(task.span.keys().get(b), task.kvHead, shape);
            product(count, b > queries.begin ? Result.ADD : Result.WRITE, slopes, ROW, at(block, 0, 0),
                    4L * block.stride(), queries.address(dq, dim), 4L * dq.stride(), valid, dim, 1);
        }

        /// Rows of block b of `to` += weightsᵀ·x over the queries; queries before a key do not attend to it.
        private void overQueries(HostTensor to, long weights, HostTensor x, int b, Queries queries) {
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
