package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.AttentionShape;
import bios.worker.kernel.Attention;
import bios.worker.kernel.Sums;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/// Attention by plain loops, query by query: the definition, and the fallback if oneDNN does not load. Tasks
/// are (span, tile of queries, key-value head) forward and (span, key-value head) backward; each walks blocks
/// of keys from position 0.
final class PlainAttention implements CpuAttention {
    private static final int BLOCK = HostSpan.BLOCK;

    private record Task(HostSpan span, int from, int count, int kvHead) {}

    private final Pool pool;
    private final Workspace[] workspaces;

    PlainAttention(Pool pool, Workspace[] workspaces) {
        this.pool = pool;
        this.workspaces = workspaces;
    }

    @Override public void forward(HostTensor out, HostTensor lse, HostTensor q, List<HostSpan> spans,
            AttentionShape shape) {
        CpuAttention.check(q, spans, shape);
        var tasks = new ArrayList<Task>();
        for (var span : spans) {
            for (int from = 0; from < span.count(); from += BLOCK) {
                for (int h = 0; h < shape.kvHeads(); h++) {
                    tasks.add(new Task(span, from, Math.min(BLOCK, span.count() - from), h));
                }
            }
        }
        pool.run(tasks.size(), (i, thread) -> forward(out, lse, q, tasks.get(i), shape, workspaces[thread]));
    }

    private static void forward(HostTensor out, HostTensor lse, HostTensor q, Task task, AttentionShape shape,
            Workspace space) {
        int dim = shape.headDim();
        int group = shape.heads() / shape.kvHeads();
        int first = task.span.position() + task.from;
        var queries = new Attention.Query[task.count * group];
        for (int i = 0; i < queries.length; i++) {
            queries[i] = new Attention.Query(dim);
            int head = task.kvHead * group + i % group;
            Rows.load(queries[i].row(), 0, q, task.span.row() + task.from + i / group, head * dim, dim);
            queries[i].begin(shape.scale());
        }
        float[] keys = space.row(0, dim * BLOCK);
        float[] values = space.row(1, dim * BLOCK);
        float[] room = space.row(2, dim * BLOCK);
        int last = first + task.count;
        for (int b = CpuAttention.from(first, shape.window()) / BLOCK; b * BLOCK < last; b++) {
            loadBlock(room, HostSpan.head(task.span.keys().get(b), task.kvHead, shape), dim);
            transpose(keys, room, dim);
            loadBlock(values, HostSpan.head(task.span.values().get(b), task.kvHead, shape), dim);
            for (int i = 0; i < queries.length; i++) {
                int position = first + i / group;
                int low = Math.max(0, CpuAttention.from(position, shape.window()) - b * BLOCK);
                queries[i].addBlock(keys, values, low, Math.min(BLOCK, position + 1 - b * BLOCK));
            }
        }
        float[] one = space.row(3, 1);
        for (int i = 0; i < queries.length; i++) {
            int head = task.kvHead * group + i % group;
            int row = task.span.row() + task.from + i / group;
            one[0] = queries[i].end(room);
            Rows.store(out, row, head * dim, room, 0, dim);
            Rows.store(lse, row, head, one, 0, 1);
        }
    }

    @Override public void backward(HostTensor dq, HostTensor dk, HostTensor dv, HostTensor dout,
            HostTensor out, HostTensor lse,
            HostTensor q, List<HostSpan> spans, AttentionShape shape) {
        CpuAttention.check(q, spans, shape);
        var tasks = new ArrayList<Task>();
        for (var span : spans) {
            require(span.position() == 0, "a gradient needs the whole sequence");
            for (int h = 0; h < shape.kvHeads(); h++) tasks.add(new Task(span, 0, span.count(), h));
        }
        pool.run(tasks.size(), (i, thread) -> {
            var pass = new Backward(dq, dk, dv, dout, out, lse, q, tasks.get(i), shape, workspaces[thread]);
            for (int b = 0; b * BLOCK < tasks.get(i).count; b++) pass.block(b);
        });
    }

    /// The gradients of one span and key-value head: blocks of keys in order, and for each the queries in
    /// order.
    private record Backward(HostTensor dq, HostTensor dk, HostTensor dv, HostTensor dout, HostTensor out,
            HostTensor lse, HostTensor q,
            Task task, AttentionShape shape, Workspace space) {
        void block(int b) {
            int dim = shape.headDim();
            int group = shape.heads() / shape.kvHeads();
            float[] keys = space.row(0, dim * BLOCK);
            float[] keysT = space.row(1, dim * BLOCK);
            float[] valuesT = space.row(2, dim * BLOCK);
            loadBlock(keys, HostSpan.head(task.span.values().get(b), task.kvHead, shape), dim);
            transpose(valuesT, keys, dim);
            loadBlock(keys, HostSpan.head(task.span.keys().get(b), task.kvHead, shape), dim);
            transpose(keysT, keys, dim);
            float[] dkBlock = space.zeros(3, dim * BLOCK);
            float[] dvBlock = space.zeros(4, dim * BLOCK);
            for (int position = b * BLOCK; position < task.count; position++) {
                int low = Math.max(0, CpuAttention.from(position, shape.window()) - b * BLOCK);
                int high = Math.min(BLOCK, position + 1 - b * BLOCK);
                if (low >= high) continue;
                for (int g = 0; g < group; g++) {
                    query(b, position, task.kvHead * group + g, keys, keysT, valuesT, dkBlock, dvBlock, low,
                            high);
                }
            }
            for (int j = 0; j < Math.min(BLOCK, task.count - b * BLOCK); j++) {
                int row = task.span.row() + b * BLOCK + j;
                Rows.store(dk, row, task.kvHead * dim, dkBlock, j * dim, dim);
                Rows.store(dv, row, task.kvHead * dim, dvBlock, j * dim, dim);
            }
        }

        private void query(int b, int position, int head, float[] keys, float[] keysT, float[] valuesT,
                float[] dkBlock, float[] dvBlock, int low, int high) {
            int dim = shape.headDim();
            int row = task.span.row() + position;
            float[] qRow = new float[dim];
            float[] doutRow = new float[dim];
            float[] dqRow = new float[dim];
            float[] outRow = space.row(5, dim);
            float[] one = space.row(6, 1);
            Rows.load(qRow, 0, q, row, head * dim, dim);
            Rows.load(doutRow, 0, dout, row, head * dim, dim);
            Rows.load(outRow, 0, out, row, head * dim, dim);
            Rows.load(one, 0, lse, row, head, 1);
            // The first block that a query attends to begins its dq.
            if (CpuAttention.from(position, shape.window()) / BLOCK != b)
                Rows.load(dqRow, 0, dq, row, head * dim, dim);
            float delta = (float) Sums.dot(doutRow, outRow, dim);
            Attention.backwardAdd(dqRow, dkBlock, dvBlock, doutRow, delta, one[0], qRow, keys, keysT,
                    valuesT, low, high, shape.scale(), space.row(7, BLOCK), space.row(8, BLOCK));
            Rows.store(dq, row, head * dim, dqRow, 0, dim);
        }
    }

    /// to `[BLOCK, dim]` ← one head of a block, the rest zero.
    private static void loadBlock(float[] to, HostTensor block, int dim) {
        int rows = Math.min(BLOCK, block.rows());
        for (int j = 0; j < rows; j++) Rows.load(to, j * dim, block, j, 0, dim);
        Arrays.fill(to, rows * dim, BLOCK * dim, 0);
    }

    private static void transpose(float[] to, float[] from, int dim) {
        for (int d = 0; d < dim; d++) {
            for (int j = 0; j < BLOCK; j++) to[d * BLOCK + j] = from[j * dim + d];
        }
    }
}
