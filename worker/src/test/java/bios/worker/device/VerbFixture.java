package bios.worker.device;

import bios.worker.device.FactorTable.Factor;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;

/// Helpers for tests of verbs: random matrices, and sums in double precision.
final class VerbFixture {
    private VerbFixture() {}

    /// Numbers in [-1, 1).
    static float[] random(long seed, int n) {
        var random = new SplittableRandom(seed);
        float[] x = new float[n];
        for (int i = 0; i < n; i++) x[i] = (float) random.nextDouble(-1, 1);
        return x;
    }

    /// A matrix whose stride is its number of columns plus `gap`.
    static Tensor tensor(Device on, DType dtype, int rows, int columns, int gap, float[] values) {
        var tensor = on.tensor(dtype, rows, columns + gap).columns(0, columns);
        on.write(tensor, values, 0);
        return tensor;
    }

    /// A dense matrix of [DType#F32].
    static Tensor tensor(Device on, int rows, int columns, float[] values) {
        return tensor(on, DType.F32, rows, columns, 0, values);
    }

    /// A column `[n, 1]` of [DType#I32].
    static Tensor ints(Device on, Device.Scope scope, int... values) {
        return on.upload(scope, List.of(HostArray.column(values))).getFirst();
    }

    static float[] read(Device on, Tensor from) {
        float[] values = new float[Math.toIntExact(from.elements())];
        on.read(from, values, 0);
        return values;
    }

    /// A matrix of a model file.
    static FrozenMatrix frozen(Arena arena, FrozenMatrix.WeightType dtype, int rows, int columns,
            float[] values) {
        var memory = arena.allocate((long) rows * columns * dtype.bytes(), 64);
        for (int i = 0; i < values.length; i++)
            switch (dtype) {
                case F32 -> memory.setAtIndex(ValueLayout.JAVA_FLOAT, i, values[i]);
                case BF16 -> memory.setAtIndex(ValueLayout.JAVA_SHORT, i, HalfFloats.toBf16(values[i]));
                case F16 ->
                    memory.setAtIndex(ValueLayout.JAVA_SHORT, i, Float.floatToFloat16(values[i]));
            }
        return new FrozenMatrix(memory, dtype, rows, columns);
    }

    /// Factors by site.
    record Factors(int sites, Map<Integer, Factor> factors) implements FactorTable {
        /// Random factors `[in, rank]` and `[rank, out]` at a site.
        static Factors random(Device on, long seed, int site, int in, int rank, int out) {
            return new Factors(site + 1, Map.of(site, factor(on, in, rank, out,
                    VerbFixture.random(seed, in * rank), VerbFixture.random(seed + 1, rank * out))));
        }

        static Factor factor(Device on, int in, int rank, int out, float[] a, float[] b) {
            return new Factor(tensor(on, in, rank, a), tensor(on, rank, out, b));
        }

        @Override public Optional<Factor> at(int site) {
            return Optional.ofNullable(factors.get(site));
        }
    }

    static float[] rounded(float[] x) {
        float[] y = x.clone();
        for (int i = 0; i < y.length; i++) y[i] = HalfFloats.rounded(y[i]);
        return y;
    }

    /// s·x·b, x `[m, k]`, b `[k, n]`.
    static double[] product(float[] x, float[] b, int m, int k, int n, double s) {
        double[] y = new double[m * n];
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                for (int l = 0; l < k; l++) y[i * n + j] += s * x[i * k + l] * b[l * n + j];
        return y;
    }

    static float[] transposed(float[] x, int rows, int columns) {
        float[] y = new float[x.length];
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) y[j * rows + i] = x[i * columns + j];
        return y;
    }

    static float[] rows(float[] x, int columns, int from, int count) {
        return Arrays.copyOfRange(x, from * columns, (from + count) * columns);
    }

    static float[] floats(double[] x) {
        float[] y = new float[x.length];
        for (int i = 0; i < x.length; i++) y[i] = (float) x[i];
        return y;
    }
}
