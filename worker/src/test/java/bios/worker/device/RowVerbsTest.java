package bios.worker.device;

import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.VerbFixture.product;
import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.rounded;
import static bios.worker.device.VerbFixture.tensor;
import static bios.worker.device.VerbFixture.transposed;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import bios.worker.kernel.RmsNorm;
import bios.worker.kernel.Rope;
import bios.worker.kernel.SwiGlu;
import java.lang.foreign.Arena;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Verbs on rows, and projections without adapters, against the definitions in [bios.worker.kernel] on
/// special shapes: one row, odd columns, strides larger than rows, lengths around multiples of blocks.
final class RowVerbsTest extends Conformance {
    private static final int[][] SHAPES =
            {{1, 1}, {1, 2}, {3, 33}, {63, 64}, {64, 127}, {65, 66}, {130, 1030}};

    private final Device on = open(2);
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
    }

    private Tensor apart(int rows, int columns, int gap, float[] values) {
        return tensor(on, DType.F32, rows, columns, gap, values);
    }

    private static double[] doubles(float[] x) {
        double[] y = new double[x.length];
        for (int i = 0; i < x.length; i++) y[i] = x[i];
        return y;
    }

    private static float[] row(float[] x, int i, int n) {
        return Arrays.copyOfRange(x, i * n, (i + 1) * n);
    }

    @Test void aDeviceHasADescription() {
        assertFalse(on.description().isBlank());
    }

    @Test void additionsAreExactlyThoseOfFp32() {
        for (int[] s : SHAPES) {
            int n = s[1];
            float[] a = random(1, s[0] * n), b = random(2, s[0] * n);
            var y = apart(s[0], n, 1, a);
            on.add(List.of(y), List.of(apart(s[0], n, 3, b)));
            float[] expected = new float[a.length];
            for (int i = 0; i < a.length; i++) expected[i] = a[i] + b[i];
            assertArrayEquals(expected, read(on, y), Arrays.toString(s));
        }
    }

    @Test void normsAreThoseOfTheDefinition() {
        for (int[] s : SHAPES) {
            int n = s[1];
            float[] x = random(1, s[0] * n), w = random(2, n), dy = random(3, s[0] * n), dx = random(4,
                    s[0] * n);
            float[] y = new float[x.length], inverse = new float[s[0]], back = new float[x.length];
            double largest = 0;
            for (int i = 0; i < s[0]; i++) {
                float[] out = new float[n], gradient = row(dx, i, n);
                inverse[i] = RmsNorm.forward(out, row(x, i, n), w, n, 1e-5f);
                RmsNorm.backwardAdd(gradient, row(dy, i, n), row(x, i, n), inverse[i], w, n, new float[n]);
                System.arraycopy(out, 0, y, i * n, n);
                System.arraycopy(gradient, 0, back, i * n, n);
                largest = Math.max(largest, inverse[i]);
            }
            // a square root halves the relative error of the mean square; both sides round
            double norm = tolerance().sameSign(n) + 8 * Tolerance.ROUNDING;
            var in = apart(s[0], n, 5, x);
            var inv = apart(s[0], 1, 0, new float[s[0]]);
            var out = apart(s[0], n, 2, random(5, s[0] * n));
            on.rmsNorm(out, inv, in, apart(1, n, 0, w), 1e-5f);
            assertClose(doubles(inverse), read(on, inv), 0, norm, "inverse " + Arrays.toString(s));
            assertClose(doubles(y), read(on, out), norm, norm, "y " + Arrays.toString(s));
            var gradient = apart(s[0], n, 1, dx);
            on.rmsNormBackwardAdd(gradient, apart(s[0], n, 0, dy), in, inv, apart(1, n, 0, w));
            // the mean of n products of three factors times inverse³, beside terms of size inverse
            double allowed = 4 * Math.max(1, largest) * norm
                    + Math.pow(largest, 3) * (tolerance().sum(n, 1.0 / 3, Tolerance.EVEN) / n + norm);
            assertClose(doubles(back), read(on, gradient), allowed, norm, "dx " + Arrays.toString(s));
        }
    }

    @Test void rotationsAreThoseOfTheDefinition() {
        for (int half : new int[] {1, 3, 5, 32})
            for (int[] s : new int[][] {{1, 1}, {3, 4}, {65, 2}}) {
                int n = s[1] * 2 * half;
                float[] x = random(1, s[0] * n), cos = random(2, 70 * half), sin = random(3, 70 * half);
                int[] positions = new int[s[0]];
                for (int i = 0; i < s[0]; i++) positions[i] = i * 31 % 70;
                float[] rotated = new float[x.length], back = new float[x.length];
                for (int i = 0; i < s[0]; i++) {
                    float[] c = row(cos, positions[i], half), d = row(sin, positions[i], half);
                    float[] out = new float[n], gradient = new float[n];
                    for (int head = 0; head < s[1]; head++) {
                        Rope.forward(out, row(x, i, n), head * 2 * half, half, c, d);
                        Rope.backward(gradient, row(x, i, n), head * 2 * half, half, c, d);
                    }
                    System.arraycopy(out, 0, rotated, i * n, n);
                    System.arraycopy(gradient, 0, back, i * n, n);
                }
                var at = VerbFixture.ints(on, scope, positions);
                var c = apart(70, half, 0, cos);
                var d = apart(70, half, 0, sin);
                for (boolean forward : new boolean[] {true, false}) {
                    var t = apart(s[0], n, 3, x);
                    if (forward) on.rope(t, at, 2 * half, c, d);
                    else on.ropeBackward(t, at, 2 * half, c, d);
                    // two products below 1 and their sum, on both sides
                    assertClose(doubles(forward ? rotated : back), read(on, t), 6 * Tolerance.ROUNDING,
                            2 * Tolerance.ROUNDING, "half " + half + ", forward " + forward);
                }
            }
    }

    @Test void gatesAreThoseOfTheDefinitionAlsoInPlace() {
        for (int[] s : SHAPES) {
            int n = s[1];
            float[] gate = random(1, s[0] * n), up = random(2, s[0] * n), dy = random(3, s[0] * n);
            for (int i = 0; i < gate.length; i++) gate[i] *= i % 5 == 0 ? 100 : 5;
            float[] y = new float[gate.length], dgate = new float[gate.length], dup = new float[gate.length];
            SwiGlu.forward(y, gate, up, gate.length);
            SwiGlu.backward(dgate, dup, dy, gate, up, gate.length);
            var g = apart(s[0], n, 1, gate);
            var u = apart(s[0], n, 2, up);
            var out = apart(s[0], n, 3, gate);
            on.swiglu(out, g, u);
            // exp, 1/(1 + exp) and two products; z·(1 - σ) has the error of z·exp(-z) beside 1
            double few = 16 * Tolerance.ROUNDING;
            assertClose(doubles(y), read(on, out), few, few, "y " + Arrays.toString(s));
            on.swigluBackward(g, u, apart(s[0], n, 0, dy), g, u);
            assertClose(doubles(dgate), read(on, g), 4 * few, 4 * few, "dgate " + Arrays.toString(s));
            assertClose(doubles(dup), read(on, u), few, few, "dup " + Arrays.toString(s));
        }
    }

    /// Projections without adapters, in every type of weights, forward and backward.
    @Test void projectionsAreThoseOfSumsInDoublePrecision() {
        for (int[] s : new int[][] {{1, 1, 1}, {1, 16, 9}, {2, 5, 130}, {63, 33, 64}, {64, 70, 31}, {65,
                600, 48},
                {0, 7, 5}})
            for (var dtype : FrozenMatrix.WeightType.values())
                try (var arena = Arena.ofShared()) {
                    project(arena, dtype, s[0], s[1], s[2]);
                }
    }

    private void project(Arena arena, FrozenMatrix.WeightType dtype, int rows, int out, int in) {
        // numbers that every type represents exactly, so that no path rounds anything before its sums
        float[] w = eightBits(1, out * in), x = eightBits(2, rows * in), dy = eightBits(3, rows * out);
        var weight = on.weight(VerbFixture.frozen(arena, dtype, out, in, w));
        var none = on.slots(scope, List.of());
        var input = apart(rows, in, 3, x);
        var y = apart(rows, out, 1, random(4, rows * out));
        String what = "%s [%d, %d, %d]".formatted(dtype, rows, out, in);
        on.project(y, input, weight, Optional.empty(), Optional.empty(), none, 0, Optional.empty());
        assertClose(product(x, transposed(w, out, in), rows, in, out, 1), read(on, y), tolerance().sum(in),
                Tolerance.ROUNDING, "y " + what);
        for (boolean add : new boolean[] {false, true}) {
            float[] before = random(5, rows * in);
            var dx = apart(rows, in, 2, before);
            on.projectBack(Optional.of(dx), add, apart(rows, out, 2, dy), input, weight, none, 0,
                    Optional.empty());
            double[] expected = product(dy, w, rows, out, in, 1);
            for (int i = 0; add && i < expected.length; i++) expected[i] += before[i];
            assertClose(expected, read(on, dx), tolerance().sum(out + 1), 2 * Tolerance.ROUNDING,
                    "dx " + what);
        }
    }

    /// Random numbers in [-1, 1) with 8 bits.
    private static float[] eightBits(long seed, int n) {
        return rounded(random(seed, n));
    }
}
