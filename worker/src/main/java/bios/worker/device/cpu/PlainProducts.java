package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.Activations;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.Weight;
import bios.worker.kernel.HalfFloats;
import bios.worker.kernel.Sums;
import java.lang.foreign.Arena;
import java.util.Arrays;

/// Products by plain loops with sums in double precision: the definition, and the fallback if oneDNN does not
/// load. With a bf16 weight the activations are split or rounded to bf16 first.
final class PlainProducts implements Products {
    private static final int BLOCK_ROWS = 16;

    private record PlainWeight(FrozenMatrix matrix) implements Weight {
        @Override public int out() {
            return matrix.rows();
        }

        @Override public int in() {
            return matrix.columns();
        }
    }

    /// Row i of the right factor, as it is multiplied.
    private interface RightRow {
        void load(float[] to, int i);
    }

    /// An element of the left factor, as it is multiplied.
    private interface LeftElement {
        LeftElement AS_IT_IS = x -> x;

        float value(float x);
    }

    private final Pool pool;
    private final Memory memory;
    private final Workspace[] workspaces;
    private final Activations activations;
    private final Arena weights = Arena.ofShared();

    PlainProducts(Pool pool, Memory memory, Workspace[] workspaces, Activations activations) {
        this.pool = pool;
        this.memory = memory;
        this.workspaces = workspaces;
        this.activations = activations;
    }

    private static LeftElement leftElement(FrozenMatrix matrix, Activations activations) {
        return matrix.dtype() == WeightType.BF16
                ? x -> activations.operand(x, matrix.rows(), matrix.columns()) : LeftElement.AS_IT_IS;
    }

    @Override public String description() {
        return "plain products";
    }

    /// Copies the matrix: its file may change later.
    @Override public Weight packWeight(FrozenMatrix matrix) {
        FiniteScan.all(matrix, pool);
        long bytes = packedBytes(matrix);
        memory.count(bytes);
        try {
            var copy = weights.allocate(bytes, 64).copyFrom(matrix.memory().asSlice(0, bytes));
            return new PlainWeight(new FrozenMatrix(copy, matrix.dtype(), matrix.rows(), matrix.columns()));
        } catch (Throwable t) {
            memory.uncount(bytes);
            throw t;
        }
    }

    @Override public long packedBytes(FrozenMatrix matrix) {
        return (long) matrix.rows() * matrix.columns() * matrix.dtype().bytes();
    }

    @Override public void multiply(HostTensor y, HostTensor x, Weight w) {
        var matrix = ((PlainWeight) w).matrix;
        require(y.columns() == w.out() && x.columns() == w.in() && y.rows() == x.rows(),
                "shapes do not match in y = x·Wᵀ");
        dots(y, x, leftElement(matrix, activations), 1, false, (to, i) -> HalfFloats.row(to, matrix, i));
    }

    @Override public void addInputGradient(HostTensor dx, HostTensor dy, Weight w) {
        var matrix = ((PlainWeight) w).matrix;
        require(dx.columns() == w.in() && dy.columns() == w.out() && dx.rows() == dy.rows(),
                "shapes do not match in dx += dy·W");
        sums(dx, dy, leftElement(matrix, activations), 1, true, (to, i) -> HalfFloats.row(to, matrix, i));
    }

    @Override public void multiplyByTransposed(HostTensor y, HostTensor x, HostTensor a, float s,
            boolean add) {
        require(y.columns() == a.rows() && x.columns() == a.columns() && y.rows() == x.rows(),
                "shapes do not match in y = x·aᵀ");
        dots(y, x, LeftElement.AS_IT_IS, s, add, (to, i) -> Rows.load(to, a, i));
    }

    @Override public void multiplyBy(HostTensor y, HostTensor x, HostTensor b, float s, boolean add) {
        require(y.columns() == b.columns() && x.columns() == b.rows() && y.rows() == x.rows(),
                "shapes do not match in y = x·b");
        sums(y, x, LeftElement.AS_IT_IS, s, add, (to, i) -> Rows.load(to, b, i));
    }

    /// y[t][o] ← s·Σ x[t][k]·right[o][k].
    private void dots(HostTensor y, HostTensor x, LeftElement left, float s, boolean add, RightRow right) {
        pool.run(blocks(y.columns()), (task, thread) -> {
            var space = workspaces[thread];
            int k = x.columns();
            float[] row = space.row(0, k);
            float[] w = space.row(1, k);
            float[] one = space.row(2, 1);
            for (int o = task * BLOCK_ROWS; o < Math.min(y.columns(), (task + 1) * BLOCK_ROWS); o++) {
                right.load(w, o);
                for (int t = 0; t < x.rows(); t++) {
                    load(row, x, t, left);
                    float before = 0;
                    if (add) {
                        Rows.load(one, 0, y, t, o, 1);
                        before = one[0];
                    }
                    one[0] = (float) (before + s * Sums.dot(row, w, k));
                    Rows.store(y, t, o, one, 0, 1);
                }
            }
        });
    }

    /// y[t] ← s·Σ x[t][k]·right[k].
    private void sums(HostTensor y, HostTensor x, LeftElement left, float s, boolean add, RightRow right) {
        pool.run(blocks(x.rows()), (task, thread) -> {
            var space = workspaces[thread];
            int n = y.columns();
            float[] row = space.row(0, x.columns());
            float[] w = space.row(1, n);
            float[] out = space.row(2, n);
            double[] sum = new double[n];
            for (int t = task * BLOCK_ROWS; t < Math.min(x.rows(), (task + 1) * BLOCK_ROWS); t++) {
                load(row, x, t, left);
                Arrays.fill(sum, 0);
                for (int k = 0; k < x.columns(); k++) {
                    right.load(w, k);
                    double a = row[k];
                    for (int i = 0; i < n; i++) sum[i] += a * w[i];
                }
                if (add) Rows.load(out, y, t);
                for (int i = 0; i < n; i++) out[i] = (float) ((add ? out[i] : 0) + s * sum[i]);
                Rows.store(y, t, out);
            }
        });
    }

    private static void load(float[] row, HostTensor x, int t, LeftElement left) {
        Rows.load(row, x, t);
        for (int i = 0; i < x.columns(); i++) row[i] = left.value(row[i]);
    }

    private static int blocks(int n) {
        return (n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    }

    @Override public void outerAdd(HostTensor g, HostTensor y, HostTensor x, float s) {
        require(g.rows() == y.columns() && g.columns() == x.columns() && y.rows() == x.rows(),
                "shapes do not match in g += yᵀ·x");
        pool.run(g.rows(), (i, thread) -> {
            var space = workspaces[thread];
            int n = g.columns();
            float[] row = space.row(0, n);
            float[] one = space.row(1, 1);
            double[] sum = new double[n];
            for (int t = 0; t < x.rows(); t++) {
                Rows.load(row, x, t);
                Rows.load(one, 0, y, t, i, 1);
                for (int j = 0; j < n; j++) sum[j] += (double) one[0] * row[j];
            }
            Rows.load(row, g, i);
            for (int j = 0; j < n; j++) row[j] += (float) (s * sum[j]);
            Rows.store(g, i, row);
        });
    }

    @Override public void close() {
        weights.close();
    }
}
