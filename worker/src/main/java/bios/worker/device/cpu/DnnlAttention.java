package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.AttentionShape;
import bios.worker.kernel.Exp;
import bios.worker.kernel.Sums;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// Attention with oneDNN's products on tiles: the queries of all heads that share a key-value head, for up to
/// 64 positions, against one block of keys at a time. All steps except the two products work on one query's
/// row, and a row of a product has the same bits whatever other rows are in the call, so the tiles do not
/// change the result. Blocks are copied, so that the contents beyond the last position (pages of a cache) are
/// never read. The formulas are those of [bios.worker.kernel.Attention].
final class DnnlAttention implements CpuAttention {
    private static final int BLOCK = HostSpan.BLOCK;
    /// Rows of a tile, roughly, for any number of heads that share a key-value head.
    private static final int ROWS = 512;

    private record Task(HostSpan span, int from, int count, int kvHead) {}

    /// The kernels for one head shape and one number of queries.
    private record Kernels(DnnlKernels.Kernel packKeys, DnnlKernels.Kernel packRows,
            DnnlKernels.Kernel scores,
            DnnlKernels.Kernel weigh, DnnlKernels.Kernel weighAdd, DnnlKernels.Kernel outer) {}

    /// Buffers of one thread of the pool.
    private static final class Space {
        final NativeBuffer block;
        final NativeBuffer keys;
        final NativeBuffer keyRows;
        final NativeBuffer values;
        final NativeBuffer queries;
        final NativeBuffer gradients;
        final NativeBuffer scores;
        final NativeBuffer more;
        final NativeBuffer result;
        final NativeBuffer sums;
        double[] totals = new double[64];

        Space(Memory memory) {
            block = new NativeBuffer(memory);
            keys = new NativeBuffer(memory);
            keyRows = new NativeBuffer(memory);
            values = new NativeBuffer(memory);
            queries = new NativeBuffer(memory);
            gradients = new NativeBuffer(memory);
            scores = new NativeBuffer(memory);
            more = new NativeBuffer(memory);
            result = new NativeBuffer(memory);
            sums = new NativeBuffer(memory);
        }

        double[] totals(int n) {
            if (totals.length < n) totals = new double[n];
            Arrays.fill(totals, 0, n, 0);
            return totals;
        }

        void close() {
            for (var buffer : List.of(block, keys, keyRows, values, queries, gradients, scores, more, result,
                    sums)) {
                buffer.close();
            }
        }
    }

    private final Pool pool;
    private final Workspace[] workspaces;
    private final DnnlKernels kernels;
    private final Space[] spaces;

    DnnlAttention(Dnnl dnnl, Pool pool, Memory memory, Workspace[] workspaces) {
        this.pool = pool;
        this.workspaces = workspaces;
        kernels = new DnnlKernels(dnnl, pool.size(), memory);
        spaces = new Space[pool.size()];
        for (int i = 0; i < spaces.length; i++) spaces[i] = new Space(memory);
    }

    /// Queries of one tile.
    private static int tileOf(AttentionShape shape) {
        return Math.clamp(Integer.highestOneBit(Math.max(1, ROWS * shape.kvHeads() / shape.heads())), 1,
                BLOCK);
    }

    /// The number of rows, with padding, in which `count` queries are computed: one of few sizes, at least 2.
    private static int rows(int count, AttentionShape shape) {
        int size = Integer.highestOneBit(2 * count - 1);
        return Math.max(2, size * shape.heads() / shape.kvHeads());
    }

    private Map<Integer, Kernels> kernels(List<Task> tasks, AttentionShape shape, boolean backward) {
        int dim = shape.headDim();
        var found = new HashMap<Integer, Kernels>();
        for (var task : tasks) {
            for (int from = 0; from < task.count; from += tileOf(shape)) {
                int rows = rows(Math.min(tileOf(shape), task.count - from), shape);
                found.computeIfAbsent(rows, _ -> new Kernels(kernels.pack(Dnnl.F32, dim, BLOCK, 1, dim),
                        kernels.pack(Dnnl.F32, BLOCK, dim, dim, 1),
                        kernels.product(Dnnl.F32, rows, dim, BLOCK, dim, BLOCK, false),
                        kernels.product(Dnnl.F32, rows, BLOCK, dim, BLOCK, dim, false),
                        kernels.product(Dnnl.F32, rows, BLOCK, dim, BLOCK, dim, true),
                        backward ? kernels.plainProduct(BLOCK, rows, dim, dim, dim, true, true) : null));
            }
        }
        return found;
    }

    @Override public void forward(HostTensor out, HostTensor lse, HostTensor q, List<HostSpan> spans,
            AttentionShape shape) {
        CpuAttention.check(q, spans, shape);
        var tasks = new ArrayList<Task>();
        int tile = tileOf(shape);
        for (var span : spans) {
            for (int from = 0; from < span.count(); from += tile) {
                for (int h = 0; h < shape.kvHeads(); h++) {
                    tasks.add(new Task(span, from, Math.min(tile, span.count() - from), h));
                }
            }
        }
        var compiled = kernels(tasks, shape, false);
        pool.run(tasks.size(), (i, thread) -> {
            var task = tasks.get(i);
            int rows = rows(task.count, shape);
            new Forward(out, lse, q, task, shape, rows, compiled.get(rows), thread, spaces[thread],
                    workspaces[thread]).run();
        });
    }

    /// One tile of queries, from its first visible block to its last.
    private record Forward(HostTensor out, HostTensor lse, HostTensor q, Task task, AttentionShape shape,
            int rows,
            Kernels kernels, int thread, Space space, Workspace workspace) {
        void run() {
            int dim = shape.headDim();
            int group = shape.heads() / shape.kvHeads();
            int used = task.count * group;
            int first = task.span.position() + task.from;
            var queries = loadRows(space.queries, q, task.span.row() + task.from, task.kvHead, rows, used,
                    shape, shape.scale(), workspace);
            float[] tops = workspace.row(2, used);
            Arrays.fill(tops, 0, used, Float.NEGATIVE_INFINITY);
            double[] totals = space.totals(used);
            var scores = space.scores.atLeast(4L * rows * BLOCK);
            var sums = space.result.atLeast(4L * rows * dim);
            sums.asSlice(0, 4L * rows * dim).fill((byte) 0);
            float[] tile = workspace.row(3, rows * BLOCK);
            int end = first + task.count;
            for (int b = CpuAttention.from(first, shape.window()) / BLOCK; b * BLOCK < end; b++) {
                int valid = Math.min(BLOCK, end - b * BLOCK);
                var keys = pack(kernels.packKeys, space.keys, 0, head(task.span.keys().get(b)), valid);
                kernels.scores.run(thread, queries, keys, scores);
                MemorySegment.copy(scores, ValueLayout.JAVA_FLOAT, 0, tile, 0, rows * BLOCK);
                softmaxBlock(tile, tops, totals, sums, first, b, used, group);
                MemorySegment.copy(tile, 0, scores, ValueLayout.JAVA_FLOAT, 0, rows * BLOCK);
                var values = pack(kernels.packRows, space.values, 0, head(task.span.values().get(b)),
                        valid);
                kernels.weighAdd.run(thread, scores, values, sums);
            }
            store(tops, totals, sums, used, group);
        }

        private HostTensor head(HostTensor block) {
            return HostSpan.head(block, task.kvHead, shape);
        }

        private MemorySegment pack(DnnlKernels.Kernel kernel, NativeBuffer to, int at, HostTensor head,
                int n) {
            return DnnlAttention.pack(kernel, thread, space, to, at, head, n, shape.headDim());
        }

        /// tile: scores → weights relative to the new maxima, masked ones zero; earlier sums are rescaled to
        /// the new maxima.
        private void softmaxBlock(float[] tile, float[] tops, double[] totals, MemorySegment sums, int first,
                int b, int used, int group) {
            int dim = shape.headDim();
            float[] row = workspace.row(4, Math.max(dim, BLOCK));
            for (int i = 0; i < used; i++) {
                int low = low(first + i / group, b);
                int high = Math.min(BLOCK, first + i / group + 1 - b * BLOCK);
                int at = i * BLOCK;
                if (low >= high) continue;
                float top = tops[i];
                for (int j = low; j < high; j++) top = Math.max(top, tile[at + j]);
                if (top != tops[i] && totals[i] != 0) {
                    float shrink = Exp.exp(tops[i] - top);
                    totals[i] *= shrink;
                    MemorySegment.copy(sums, ValueLayout.JAVA_FLOAT, 4L * i * dim, row, 0, dim);
                    for (int d = 0; d < dim; d++) row[d] *= shrink;
                    MemorySegment.copy(row, 0, sums, ValueLayout.JAVA_FLOAT, 4L * i * dim, dim);
                }
                tops[i] = top;
                for (int j = 0; j < BLOCK; j++) tile[at + j] -= top;
            }
            Exp.exp(tile, tile, used * BLOCK, 1, 0);
            Arrays.fill(tile, used * BLOCK, rows * BLOCK, 0);
            for (int i = 0; i < used; i++) {
                mask(tile, i * BLOCK, low(first + i / group, b), first + i / group + 1 - b * BLOCK);
                totals[i] += Sums.sum(tile, i * BLOCK, BLOCK);
            }
        }

        private int low(int position, int b) {
            return Math.max(0, CpuAttention.from(position, shape.window()) - b * BLOCK);
        }

        private void store(float[] tops, double[] totals, MemorySegment sums, int used, int group) {
            int dim = shape.headDim();
            float[] row = workspace.row(4, dim);
            float[] one = workspace.row(5, 1);
            for (int i = 0; i < used; i++) {
                MemorySegment.copy(sums, ValueLayout.JAVA_FLOAT, 4L * i * dim, row, 0, dim);
                float inverse = (float) (1 / totals[i]);
                for (int d = 0; d < dim; d++) row[d] *= inverse;
                int at = task.span.row() + task.from + i / group;
                int head = task.kvHead * group + i % group;
                Rows.store(out, at, head * dim, row, 0, dim);
                one[0] = (float) (tops[i] + Math.log(totals[i]));
                Rows.store(lse, at, head, one, 0, 1);
            }
        }
    }

    /// Sets the masked elements of a query's block to zero.
    private static void mask(float[] tile, int at, int low, int high) {
        if (low > 0) Arrays.fill(tile, at, at + Math.min(low, BLOCK), 0);
        if (high < BLOCK) Arrays.fill(tile, at + Math.max(0, high), at + BLOCK, 0);
    }

    /// The rows of all query heads of one key-value head, position by position, times `scale`; zero from
    /// `used` on.
    private static MemorySegment loadRows(NativeBuffer to, HostTensor from, int first, int kvHead, int rows,
            int used, AttentionShape shape, float scale, Workspace workspace) {
        int dim = shape.headDim();
        int group = shape.heads() / shape.kvHeads();
        float[] tile = workspace.row(0, rows * dim);
        for (int i = 0; i < used; i += group) {
            Rows.load(tile, i * dim, from, first + i / group, kvHead * group * dim, group * dim);
        }
        if (scale != 1) for (int i = 0; i < used * dim; i++) tile[i] *= scale;
        Arrays.fill(tile, used * dim, rows * dim, 0);
        var memory = to.atLeast(4L * rows * dim);
        MemorySegment.copy(tile, 0, memory, ValueLayout.JAVA_FLOAT, 0, rows * dim);
        return memory;
    }

    /// Packs the first `valid` rows of one head of a block, the rest zero, to byte `at` of `to`, which has
    /// room.
    private static MemorySegment pack(DnnlKernels.Kernel kernel, int thread, Space space, NativeBuffer to,
            long at, HostTensor head, int valid, int dim) {
        long bytes = 4L * BLOCK * dim;
        var rows = space.block.atLeast(bytes);
        for (int j = 0; j < valid; j++) {
            MemorySegment.copy(head.memory(), 4L * j * head.stride(), rows, 4L * j * dim, 4L * dim);
        }
        if (valid < BLOCK) rows.asSlice(4L * valid * dim, 4L * (BLOCK - valid) * dim).fill((byte) 0);
        var packed = to.atLeast(at + kernel.dstBytes()).asSlice(at);
        kernel.run(thread, rows, null, packed);
        return packed;
    }

    // ---- backward ----

    @Override public void backward(HostTensor dq, HostTensor dk, HostTensor dv, HostTensor dout,
            HostTensor out, HostTensor lse,
            HostTensor q, List<HostSpan> spans, AttentionShape shape) {
        CpuAttention.check(q, spans, shape);
        var tasks = new ArrayList<Task>();
        for (var span : spans) {
            require(span.position() == 0, "a gradient needs the whole sequence");
            for (int h = 0; h < shape.kvHeads(); h++) tasks.add(new Task(span, 0, span.count(), h));
        }
        var compiled = kernels(tasks, shape, true);
        pool.run(tasks.size(), (i, thread) -> new Backward(dq, dk, dv, dout, out, lse, q, tasks.get(i),
                shape, compiled, thread, spaces[thread], workspaces[thread]).run());
    }

    /// The gradients of one span and key-value head: tiles of queries in order, and for each the blocks of
    /// keys.
    private record Backward(HostTensor dq, HostTensor dk, HostTensor dv, HostTensor dout, HostTensor out,
            HostTensor lse, HostTensor q,
            Task task, AttentionShape shape, Map<Integer, Kernels> kernels, int thread, Space space,
            Workspace workspace) {
        void run() {
            int dim = shape.headDim();
            int blocks = (task.count + BLOCK - 1) / BLOCK;
            long half = 4L * blocks * BLOCK * dim;
            var sums = space.sums.atLeast(2 * half);
            sums.asSlice(0, 2 * half).fill((byte) 0);
            if (task.count == 0) return;
            var any = kernels.values().iterator().next();
            long keyBytes = any.packKeys.dstBytes();
            long rowBytes = any.packRows.dstBytes();
            space.keys.atLeast(blocks * keyBytes);
            space.values.atLeast(blocks * keyBytes);
            space.keyRows.atLeast(blocks * rowBytes);
            for (int b = 0; b < blocks; b++) {
                int valid = Math.min(BLOCK, task.count - b * BLOCK);
                var keys = HostSpan.head(task.span.keys().get(b), task.kvHead, shape);
                pack(any.packKeys, thread, space, space.keys, b * keyBytes, keys, valid, dim);
                pack(any.packRows, thread, space, space.keyRows, b * rowBytes, keys, valid, dim);
                pack(any.packKeys, thread, space, space.values, b * keyBytes,
                        HostSpan.head(task.span.values().get(b), task.kvHead, shape), valid, dim);
            }
            for (int from = 0; from < task.count; from += tileOf(shape)) {
                tile(from, Math.min(tileOf(shape), task.count - from), sums, half, keyBytes, rowBytes);
            }
            store(dk, sums);
            store(dv, sums.asSlice(half));
        }

        private void tile(int from, int count, MemorySegment sums, long half, long keyBytes, long rowBytes) {
            int dim = shape.headDim();
            int group = shape.heads() / shape.kvHeads();
            int rows = rows(count, shape);
            int used = count * group;
            var on = kernels.get(rows);
            int at = task.span.row() + from;
            var queries = loadRows(space.queries, q, at, task.kvHead, rows, used, shape,
                    shape.scale(), workspace);
            var douts = loadRows(space.gradients, dout, at, task.kvHead, rows, used, shape, 1, workspace);
            float[] deltas = workspace.row(1, used);
            float[] lses = workspace.row(2, used);
            deltas(deltas, lses, at, used, group);
            var weights = space.scores.atLeast(4L * rows * BLOCK);
            var slopes = space.more.atLeast(4L * rows * BLOCK);
            var dqs = space.result.atLeast(4L * rows * dim);
            boolean begun = false;
            for (int b = CpuAttention.from(from, shape.window()) / BLOCK; b * BLOCK < from + count; b++) {
                on.scores.run(thread, queries, space.keys.atLeast(0).asSlice(b * keyBytes), weights);
                on.scores.run(thread, douts, space.values.atLeast(0).asSlice(b * keyBytes), slopes);
                weigh(weights, slopes, lses, deltas, from, b, rows, used, group);
                long blockAt = 4L * b * BLOCK * dim;
                on.outer.run(thread, slopes, queries, sums.asSlice(blockAt));
                on.outer.run(thread, weights, douts, sums.asSlice(half + blockAt));
                (begun ? on.weighAdd : on.weigh).run(thread, slopes,
                        space.keyRows.atLeast(0).asSlice(b * rowBytes), dqs);
                begun = true;
            }
            float[] tile = workspace.row(0, rows * dim);
            MemorySegment.copy(dqs, ValueLayout.JAVA_FLOAT, 0, tile, 0, used * dim);
            for (int i = 0; i < used * dim; i++) tile[i] *= shape.scale();
            for (int i = 0; i < used; i += group) {
                Rows.store(dq, at + i / group, task.kvHead * group * dim, tile, i * dim, group * dim);
            }
        }

        private void deltas(float[] deltas, float[] lses, int at, int used, int group) {
            int dim = shape.headDim();
            float[] x = workspace.row(3, dim);
            float[] y = workspace.row(4, dim);
            for (int i = 0; i < used; i++) {
                int head = task.kvHead * group + i % group;
                Rows.load(x, 0, dout, at + i / group, head * dim, dim);
                Rows.load(y, 0, out, at + i / group, head * dim, dim);
                deltas[i] = (float) Sums.dot(x, y, dim);
                Rows.load(lses, i, lse, at + i / group, head, 1);
            }
        }

        /// weights: scores → exp(score - lse); slopes: dout·v → weight·(dout·v - delta); masked ones zero.
        private void weigh(MemorySegment weights, MemorySegment slopes, float[] lses, float[] deltas,
                int from, int b, int rows, int used, int group) {
            float[] p = workspace.row(3, rows * BLOCK);
            float[] dp = workspace.row(4, rows * BLOCK);
            MemorySegment.copy(weights, ValueLayout.JAVA_FLOAT, 0, p, 0, used * BLOCK);
            MemorySegment.copy(slopes, ValueLayout.JAVA_FLOAT, 0, dp, 0, used * BLOCK);
            for (int i = 0; i < used; i++) {
                float shift = lses[i];
                float delta = deltas[i];
                int at = i * BLOCK;
                for (int j = 0; j < BLOCK; j++) p[at + j] -= shift;
                for (int j = 0; j < BLOCK; j++) dp[at + j] -= delta;
            }
            Exp.exp(p, p, used * BLOCK, 1, 0);
            for (int i = 0; i < used; i++) {
                int position = from + i / group;
                int low = Math.max(0, CpuAttention.from(position, shape.window()) - b * BLOCK);
                mask(p, i * BLOCK, low, position + 1 - b * BLOCK);
            }
            for (int i = 0; i < used * BLOCK; i++) dp[i] *= p[i];
            Arrays.fill(p, used * BLOCK, rows * BLOCK, 0);
            Arrays.fill(dp, used * BLOCK, rows * BLOCK, 0);
            MemorySegment.copy(p, 0, weights, ValueLayout.JAVA_FLOAT, 0, rows * BLOCK);
            MemorySegment.copy(dp, 0, slopes, ValueLayout.JAVA_FLOAT, 0, rows * BLOCK);
        }

        private void store(HostTensor to, MemorySegment from) {
            int dim = shape.headDim();
            for (int j = 0; j < task.count; j++) {
                MemorySegment.copy(from, 4L * j * dim, to.memory(),
                        4 * ((long) (task.span.row() + j) * to.stride() + task.kvHead * dim), 4L * dim);
            }
        }
    }

    @Override public void close() {
        kernels.close();
        for (var space : spaces) space.close();
    }
}
