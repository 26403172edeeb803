package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.kernel.Exp;
import bios.worker.kernel.LogSoftmax;
import bios.worker.kernel.RmsNorm;
import bios.worker.kernel.Rope;
import bios.worker.kernel.Sampling;
import bios.worker.kernel.Sums;
import bios.worker.kernel.SwiGlu;
import java.util.Arrays;

/// The verbs on rows, implemented by the definitions in [bios.worker.kernel].
final class PlainRows implements RowVerbs {
    private final Pool pool;
    private final Workspace[] workspaces;

    private interface RowTask {
        void run(int row, Workspace space);
    }

    PlainRows(Pool pool, Workspace[] workspaces) {
        this.pool = pool;
        this.workspaces = workspaces;
    }

    private void eachRow(int rows, int columns, RowTask body) {
        pool.rows(rows, columns, 16, (row, thread) -> body.run(row, workspaces[thread]));
    }

    private static float[] values(HostTensor row) {
        float[] values = new float[row.columns()];
        Rows.load(values, row, 0);
        return values;
    }

    @Override public void add(HostTensor y, HostTensor x) {
        RowVerbs.sameShape(y, x);
        int n = y.columns();
        eachRow(y.rows(), n, (row, space) -> addRow(y, row, x, row, n, space));
    }

    private static void addRow(HostTensor y, int row, HostTensor x, int xRow, int n, Workspace space) {
        float[] sum = space.row(0, n);
        float[] term = space.row(1, n);
        Rows.load(sum, y, row);
        Rows.load(term, x, xRow);
        for (int i = 0; i < n; i++) sum[i] += term[i];
        Rows.store(y, row, sum);
    }

    @Override public void rmsNorm(HostTensor y, HostTensor inverse, HostTensor x, HostTensor weight,
            float eps) {
        RowVerbs.sameShape(y, x);
        require(weight.columns() == x.columns() && inverse.rows() == x.rows(), "shapes of rmsNorm");
        int n = x.columns();
        float[] w = values(weight);
        eachRow(x.rows(), n, (row, space) -> {
            float[] in = space.row(0, n);
            float[] out = space.row(1, n);
            Rows.load(in, x, row);
            Rows.set(inverse, row, RmsNorm.forward(out, in, w, n, eps));
            Rows.store(y, row, out);
        });
    }

    @Override public void rmsNormBackwardAdd(HostTensor dx, HostTensor dy, HostTensor x, HostTensor inverse,
            HostTensor weight) {
        RowVerbs.sameShape(dx, x);
        RowVerbs.sameShape(dy, x);
        int n = x.columns();
        float[] w = values(weight);
        eachRow(x.rows(), n, (row, space) -> {
            float[] in = space.row(0, n);
            float[] gradient = space.row(1, n);
            float[] out = space.row(2, n);
            Rows.load(in, x, row);
            Rows.load(gradient, dy, row);
            Rows.load(out, dx, row);
            RmsNorm.backwardAdd(out, gradient, in, Rows.get(inverse, row), w, n, space.row(3, n));
            Rows.store(dx, row, out);
        });
    }

    @Override public void rope(HostTensor x, int[] positions, int headDim, HostTensor cos, HostTensor sin) {
        rotate(x, positions, headDim, cos, sin, true);
    }

    @Override public void ropeBackward(HostTensor dx, int[] positions, int headDim, HostTensor cos,
            HostTensor sin) {
        rotate(dx, positions, headDim, cos, sin, false);
    }

    private void rotate(HostTensor x, int[] positions, int headDim, HostTensor cos, HostTensor sin,
            boolean forward) {
        require(positions.length == x.rows() && x.columns() % headDim == 0, "shapes of rope");
        int n = x.columns();
        int half = headDim / 2;
        eachRow(x.rows(), n, (row, space) -> {
            require(positions[row] >= 0 && positions[row] < cos.rows(), "position %d of %d", positions[row],
                    cos.rows());
            float[] values = space.row(0, n);
            float[] rotated = space.row(3, n);
            float[] c = space.row(1, half);
            float[] s = space.row(2, half);
            Rows.load(values, x, row);
            Rows.load(c, cos, positions[row]);
            Rows.load(s, sin, positions[row]);
            for (int at = 0; at < n; at += headDim) {
                if (forward) Rope.forward(rotated, values, at, half, c, s);
                else Rope.backward(rotated, values, at, half, c, s);
            }
            Rows.store(x, row, rotated);
        });
    }

    @Override public void swiglu(HostTensor y, HostTensor gate, HostTensor up) {
        RowVerbs.sameShape(y, gate);
        RowVerbs.sameShape(y, up);
        int n = y.columns();
        eachRow(y.rows(), n, (row, space) -> {
            float[] g = space.row(0, n);
            float[] u = space.row(1, n);
            float[] out = space.row(2, n);
            Rows.load(g, gate, row);
            Rows.load(u, up, row);
            SwiGlu.forward(out, g, u, n);
            Rows.store(y, row, out);
        });
    }

    @Override public void swigluBackward(HostTensor dgate, HostTensor dup, HostTensor dy, HostTensor gate,
            HostTensor up) {
        RowVerbs.sameShape(dgate, gate);
        RowVerbs.sameShape(dup, up);
        RowVerbs.sameShape(dy, gate);
        int n = dy.columns();
        eachRow(dy.rows(), n, (row, space) -> {
            float[] g = space.row(0, n);
            float[] u = space.row(1, n);
            float[] gradient = space.row(2, n);
            Rows.load(g, gate, row);
            Rows.load(u, up, row);
            Rows.load(gradient, dy, row);
            float[] gateGradient = space.row(3, n);
            float[] upGradient = space.row(4, n);
            SwiGlu.backward(gateGradient, upGradient, gradient, g, u, n);
            Rows.store(dgate, row, gateGradient);
            Rows.store(dup, row, upGradient);
        });
    }

    @Override public void logSoftmaxAt(HostTensor logprobs, HostTensor lse, HostTensor logits,
            int[] targets) {
        RowVerbs.requireTargets(targets, logprobs, logits);
        int n = logits.columns();
        int each = logprobs.columns();
        eachRow(logits.rows(), n, (row, space) -> {
            float[] values = space.row(0, n);
            Rows.load(values, logits, row);
            float sum = LogSoftmax.logSumExp(values, n, space.row(1, n));
            Rows.set(lse, row, sum);
            for (int k = 0; k < each; k++) {
                int target = targets[row * each + k];
                require(target >= 0 && target < n, "target %d of %d", target, n);
                Rows.set(logprobs, row, k, values[target] - sum);
            }
        });
    }

    @Override public void logSoftmaxBackward(HostTensor logits, HostTensor lse, int[] targets,
            HostTensor dlogprobs) {
        RowVerbs.requireTargets(targets, dlogprobs, logits);
        int n = logits.columns();
        int each = dlogprobs.columns();
        eachRow(logits.rows(), n, (row, space) -> {
            float[] values = space.row(0, n);
            float[] d = new float[each];
            Rows.load(values, logits, row);
            Rows.load(d, dlogprobs, row);
            LogSoftmax.backward(values, n, Rows.get(lse, row),
                    Arrays.copyOfRange(targets, row * each, (row + 1) * each), d);
            Rows.store(logits, row, values);
        });
    }

    @Override public void softmaxBlocks(HostTensor maxima, HostTensor sums, HostTensor logits) {
        RowVerbs.requireBlocks(maxima, sums, logits);
        eachRow(logits.rows(), logits.columns(), (row, space) -> {
            float[] part = space.row(0, Sampling.BLOCK);
            float[] most = space.row(1, maxima.columns());
            float[] total = space.row(2, maxima.columns());
            for (int b = 0; b < maxima.columns(); b++) {
                int n = Math.min(Sampling.BLOCK, logits.columns() - b * Sampling.BLOCK);
                Rows.load(part, 0, logits, row, b * Sampling.BLOCK, n);
                most[b] = Sums.max(part, n);
                Exp.exp(part, part, n, 1, most[b]);
                total[b] = (float) Sums.sum(part, n);
            }
            Rows.store(maxima, row, most);
            Rows.store(sums, row, total);
        });
    }
}
