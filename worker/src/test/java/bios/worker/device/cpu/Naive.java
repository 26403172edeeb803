package bios.worker.device.cpu;

import static bios.worker.device.TestDevices.write;

import bios.worker.device.AttentionShape;
import bios.worker.device.Device;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;

/// The reference of tests: double precision, one loop per sum; and helpers to create and check matrices.
final class Naive {
    private Naive() {}

    static float[] random(long seed, int n) {
        var random = new SplittableRandom(seed);
        float[] x = new float[n];
        for (int i = 0; i < n; i++) x[i] = (float) random.nextDouble(-1, 1);
        return x;
    }

    /// A tensor whose stride is its number of columns plus `gap`.
    static Tensor tensor(Device on, int rows, int columns, int gap, float[] values) {
        var t = on.tensor(rows, columns + gap).columns(0, columns);
        if (values != null) write(on, t, values);
        return t;
    }

    /// x·aᵀ with x `[t, k]`, a `[n, k]`.
    static double[] dots(float[] x, float[] a, int t, int k, int n) {
        double[] y = new double[t * n];
        for (int i = 0; i < t; i++) {
            for (int j = 0; j < n; j++) {
                for (int l = 0; l < k; l++) y[i * n + j] += (double) x[i * k + l] * a[j * k + l];
            }
        }
        return y;
    }

    static float[] transposed(float[] x, int rows, int columns) {
        float[] y = new float[x.length];
        for (int i = 0; i < rows; i++) {
            for (int j = 0; j < columns; j++) y[j * rows + i] = x[i * columns + j];
        }
        return y;
    }

    static double[] plus(float[] before, double[] x, double s) {
        double[] y = new double[x.length];
        for (int i = 0; i < x.length; i++) y[i] = (before == null ? 0 : before[i]) + s * x[i];
        return y;
    }

    static double[] doubles(float[] x) {
        double[] y = new double[x.length];
        for (int i = 0; i < x.length; i++) y[i] = x[i];
        return y;
    }

    /// Packed keys or values split into blocks.
    static List<HostTensor> blocks(Tensor packed, int row, int count) {
        var blocks = new ArrayList<HostTensor>();
        for (int at = 0; at < count; at += Device.BLOCK) {
            blocks.add(HostTensor.of(packed).rows(row + at, Math.min(Device.BLOCK, count - at)));
        }
        return blocks;
    }

    /// One query head over keys `[count, kvHeads·dim]` of one sequence: dim values, then the lse.
    static double[] attend(float[] q, int qAt, float[] k, float[] v, int firstRow, int position, int kvHead,
            AttentionShape shape) {
        int dim = shape.headDim();
        int width = shape.kvHeads() * dim;
        double[] result = new double[dim + 1];
        double total = 0;
        for (int j = shape.window() > 0 ? Math.max(0, position - shape.window() + 1) : 0;
                j <= position; j++) {
            double score = 0;
            int at = (firstRow + j) * width + kvHead * dim;
            for (int d = 0; d < dim; d++) score += (double) q[qAt + d] * k[at + d];
            double e = Math.exp(score * shape.scale());
            total += e;
            for (int d = 0; d < dim; d++) result[d] += e * v[at + d];
        }
        for (int d = 0; d < dim; d++) result[d] /= total;
        result[dim] = Math.log(total);
        return result;
    }
}
