package bios.worker.device.cpu;

import static bios.worker.device.TestDevices.read;
import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.cpu.Naive.random;
import static bios.worker.device.cpu.Naive.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.device.Device;
import bios.worker.device.Device.AdamStep;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.device.Tolerance;
import bios.worker.kernel.Exp;
import bios.worker.kernel.HalfFloats;
import bios.worker.kernel.Sampling;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.MethodSource;

/// Verbs on rows against the same formulas in double precision, on every path of this process.
@ParameterizedClass @MethodSource("paths")
final class LayersParityTest {
    private static final int[][] SHAPES = {{1, 2}, {3, 66}, {65, 128}, {300, 1030}};

    private final String path;
    private final Tolerance tolerance;
    private final Device device;

    LayersParityTest(String path) {
        this.path = path;
        tolerance = Tolerance.of(path);
        device = TestDevices.open(path, 2);
    }

    static List<String> paths() {
        return TestDevices.paths();
    }

    /// Fails if an error exceeds `roundings` roundings, absolute for results below 1 and relative for larger
    /// ones.
    private static void assertRounded(double[] expected, float[] actual, int roundings, String what) {
        double allowed = roundings * Tolerance.ROUNDING;
        Tolerance.assertClose(expected, actual, allowed, allowed, what);
    }

    @AfterEach void close() {
        device.close();
    }

    /// Roundings of z / (1 + exp(-z)) times a number: exp counts twice, and more for large z, because the
    /// error of -z·log₂e grows with it.
    private static final int EXP = 16;

    private interface Element {
        double at(int row, int column);
    }

    private static double[] each(int rows, int columns, Element element) {
        double[] y = new double[rows * columns];
        for (int i = 0; i < y.length; i++) y[i] = element.at(i / columns, i % columns);
        return y;
    }

    @Test void expIsWithinOneUnitInTheLastPlaceAndTheSameInArrays() {
        float[] x = new float[200_003];
        for (int i = 0; i < x.length; i++) x[i] = -87f + 175f * i / x.length;
        float[] y = new float[x.length];
        Exp.exp(y, x, x.length, 1, 0);
        for (int i = 0; i < x.length; i++) {
            double exact = Math.exp(x[i]);
            assertTrue(Math.abs(y[i] - exact) <= Math.ulp((float) exact), "exp " + x[i]);
            assertEquals(Exp.exp(x[i]), y[i]);
        }
        assertTrue(Float.isNaN(Exp.exp(Float.NaN)));
        assertTrue(Exp.exp(Float.NEGATIVE_INFINITY) < 1e-37f);
    }

    @Test void memoryIsZeroedAlignedAndCheckedAndScopesReuseIt() {
        var t = device.tensor(3, 5);
        assertArrayEquals(new float[15], read(device, t));
        assertEquals(0, HostTensor.of(t).memory().address() % 64);
        device.free(t);
        assertThrows(IllegalStateException.class, () -> device.free(t));
        var first = addressesOfAStep();
        assertEquals(first, addressesOfAStep());
        var closed = device.scope();
        closed.close();
        assertThrows(IllegalStateException.class, () -> device.scratch(closed, 1, 1));
    }

    /// The addresses of scratch tensors in two nested scopes.
    private Set<Long> addressesOfAStep() {
        try (var scope = device.scope()) {
            var small = device.scratch(scope, 7, 9);
            var large = device.scratch(scope, 3000, 3000);
            device.fill(large, 2);
            long nested;
            try (var inner = device.scope()) {
                var other = device.scratch(inner, 100, 100);
                device.fill(other, 1);
                nested = HostTensor.of(other).memory().address();
            }
            assertEquals(0, HostTensor.of(large).memory().address() % 64);
            assertEquals(2f, read(device, large.rows(2999, 1))[2999]);
            return Set.of(HostTensor.of(small).memory().address(), HostTensor.of(large).memory()
                    .address(), nested);
        }
    }

    @Test void rowsOfAModelFileAreReadInEveryDtype() {
        float[] table = random(1, 10 * 33);
        try (var arena = Arena.ofShared()) {
            for (var dtype : WeightType.values()) {
                var memory = arena.allocate(10L * 33 * dtype.bytes() + 3).asSlice(3);
                double[] expected = new double[2 * 33];
                for (int i = 0; i < table.length; i++) {
                    float x = switch (dtype) {
                        case BF16 -> HalfFloats.rounded(table[i]);
                        case F16 -> Float.float16ToFloat(Float.floatToFloat16(table[i]));
                        case F32 -> table[i];
                    };
                    if (dtype == WeightType.F32) memory.set(ValueLayout.JAVA_FLOAT_UNALIGNED, 4L * i, x);
                    else memory.set(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i,
                            dtype == WeightType.F16 ? Float.floatToFloat16(x) : HalfFloats.toBf16(x));
                    if (i / 33 == 7) expected[i % 33] = x;
                    if (i / 33 == 0) expected[33 + i % 33] = x;
                }
                var y = tensor(device, 2, 33, 4, null);
                var matrix = new FrozenMatrix(memory, dtype, 10, 33);
                device.embed(y, Direct.ints(device, 7, 0), device.table(matrix));
                assertRounded(expected, read(device, y), 0, dtype.name());
                var outside = Direct.ints(device, 10, 0);
                assertThrows(IllegalStateException.class, () -> device.embed(y, outside,
                        device.table(matrix)));
            }
        }
    }

    @Test void sumsCopiesAndFillsAreElementwise() {
        for (int[] s : SHAPES) {
            float[] a = random(1, s[0] * s[1]);
            float[] b = random(2, s[0] * s[1]);
            var y = tensor(device, s[0], s[1], 1, a);
            var x = tensor(device, s[0], s[1], 3, b);
            device.add(List.of(y), List.of(x));
            assertRounded(each(s[0], s[1], (i, j) -> (double) a[i * s[1] + j] + b[i * s[1] + j]),
                    read(device, y), 1, "add");
            double squares = 0;
            for (float v : b) squares += (double) v * v;
            assertEquals(squares, Math.pow(norm(x), 2), 1e-9 * squares);
            device.copy(y, x);
            assertArrayEquals(b, read(device, y));
            device.fill(y, 1.5f);
            assertRounded(each(s[0], s[1], (_, _) -> 1.5), read(device, y), 0, "fill");
        }
    }

    private static double inverse(float[] x, int row, int n, float eps) {
        double sum = 0;
        for (int j = 0; j < n; j++) sum += (double) x[row * n + j] * x[row * n + j];
        return 1 / Math.sqrt(sum / n + eps);
    }

    @Test void rmsNormAndItsGradientAgree() {
        float eps = 1e-5f;
        for (int[] s : SHAPES) {
            int n = s[1];
            float[] x = random(1, s[0] * n);
            float[] w = random(2, n);
            float[] dy = random(3, s[0] * n);
            float[] before = random(4, s[0] * n);
            var y = tensor(device, s[0], n, 2, null);
            var inverse = tensor(device, s[0], 1, 0, null);
            var in = tensor(device, s[0], n, 5, x);
            var weight = tensor(device, 1, n, 0, w);
            device.rmsNorm(y, inverse, in, weight, eps);
            // a square root halves the relative error of the mean square; a few roundings follow
            double norm = tolerance.sameSign(n) / 2 + 4 * Tolerance.ROUNDING;
            assertClose(each(s[0], n, (i, j) -> x[i * n + j] * inverse(x, i, n, eps) * w[j]), read(device, y),
                    norm, norm, "y");
            assertClose(each(s[0], 1, (i, _) -> inverse(x, i, n, eps)), read(device, inverse), 0, norm,
                    "inverse");
            var dx = tensor(device, s[0], n, 1, before);
            device.rmsNormBackwardAdd(dx, tensor(device, s[0], n, 0, dy), in, inverse, weight);
            double[] expected = each(s[0], n, (i, j) -> {
                double inv = inverse(x, i, n, eps);
                double mean = 0;
                for (int l = 0; l < n; l++) mean += (double) dy[i * n + l] * w[l] * x[i * n + l] / n;
                return before[i * n + j]
                        + inv * ((double) dy[i * n + j] * w[j] - x[i * n + j] * inv * inv * mean);
            });
            // the mean of n products of three factors, and the norm's own error; inverse is below 2 for n > 1
            double allowed = 8 * (tolerance.sum(n, 1.0 / 3, Tolerance.EVEN) / n + norm);
            assertClose(expected, read(device, dx), allowed, allowed, "dx");
        }
    }

    @Test void ropeRotatesPairsAndItsGradientRotatesThemBack() {
        int dim = 10;
        float[] cos = new float[50 * 5];
        float[] sin = new float[50 * 5];
        for (int i = 0; i < cos.length; i++) {
            double angle = i / 5 * Math.pow(10000, -(i % 5) / 5.0);
            cos[i] = (float) Math.cos(angle);
            sin[i] = (float) Math.sin(angle);
        }
        float[] x = random(1, 3 * 4 * dim);
        int[] positions = {0, 49, 7};
        var t = tensor(device, 3, 4 * dim, 6, x);
        var c = tensor(device, 50, 5, 0, cos);
        var s = tensor(device, 50, 5, 0, sin);
        device.rope(t, Direct.ints(device, positions), dim, c, s);
        double[] expected = each(3, 4 * dim, (i, j) -> {
            int k = j % dim % 5;
            double a = x[i * 4 * dim + j - j % dim + k];
            double b = x[i * 4 * dim + j - j % dim + k + 5];
            double angle = positions[i] * Math.pow(10000, -k / 5.0);
            return j % dim < 5 ? a * Math.cos(angle) - b * Math.sin(angle) : b * Math.cos(angle)
                    + a * Math.sin(angle);
        });
        // two products with rounded sine and cosine, and a sum
        assertRounded(expected, read(device, t), 6, "rope");
        device.ropeBackward(t, Direct.ints(device, positions), dim, c, s);
        assertRounded(each(3, 4 * dim, (i, j) -> x[i * 4 * dim + j]), read(device, t), 12, "back");
        var outside = Direct.ints(device, 0, 50, 1);
        assertThrows(IllegalStateException.class, () -> device.rope(t, outside, dim, c, s));
    }

    private static double sigmoid(double z) {
        return 1 / (1 + Math.exp(-z));
    }

    @Test void swigluAndItsGradientAgreeAlsoInPlace() {
        for (int[] s : SHAPES) {
            int n = s[1];
            float[] gate = random(1, s[0] * n);
            for (int i = 0; i < gate.length; i++) gate[i] *= i % 5 == 0 ? 100 : 5;
            float[] up = random(2, s[0] * n);
            float[] dy = random(3, s[0] * n);
            var g = tensor(device, s[0], n, 1, gate);
            var u = tensor(device, s[0], n, 2, up);
            var y = tensor(device, s[0], n, 3, null);
            device.swiglu(y, g, u);
            assertRounded(each(s[0], n, (i, j) -> gate[i * n + j] * sigmoid(gate[i * n + j]) * up[i * n + j]),
                    read(device, y), EXP, "y");
            device.swigluBackward(g, u, tensor(device, s[0], n, 0, dy), g, u);
            assertRounded(each(s[0], n, (i, j) -> {
                double z = gate[i * n + j];
                return dy[i * n + j] * up[i * n + j] * sigmoid(z) * (1 + z * (1 - sigmoid(z)));
                // 1 + z·(1 - σ) cancels where z is below 0: its error is that of z·σ'
            }), read(device, g), 2 * EXP * 20, "dgate");
            assertRounded(each(s[0], n, (i, j) -> dy[i * n + j] * gate[i * n + j] * sigmoid(gate[i * n + j])),
                    read(device, u), EXP, "dup");
        }
    }

    @Test void logProbabilitiesAndTheirGradientAgree() {
        for (int[] s : new int[][] {{1, 1}, {2, 3}, {5, 1023}, {3, 30_001}}) {
            int n = s[1];
            float[] logits = random(1, s[0] * n);
            for (int i = 0; i < logits.length; i++) logits[i] *= 20;
            float[] d = random(2, s[0]);
            int[] targets = new int[s[0]];
            double[] lse = new double[s[0]];
            for (int t = 0; t < s[0]; t++) {
                targets[t] = (t * 7919) % n;
                for (int j = 0; j < n; j++) lse[t] += Math.exp(logits[t * n + j]);
                lse[t] = Math.log(lse[t]);
            }
            var x = tensor(device, s[0], n, 2, logits);
            var logprobs = tensor(device, s[0], 1, 0, null);
            var sums = tensor(device, s[0], 1, 0, null);
            device.logSoftmaxAt(logprobs, sums, x, Direct.ints(device, targets));
            // log turns the relative error of Σ exp into an absolute one; the largest logit, at most 20, is
            // added
            double sum = tolerance.sameSign(n) + 4 * Tolerance.ROUNDING + 20 * Tolerance.ROUNDING;
            assertClose(lse, read(device, sums), sum, Tolerance.ROUNDING, "lse");
            assertClose(each(s[0], 1, (t, _) -> logits[t * n + targets[t]] - lse[t]), read(device, logprobs),
                    sum + 20 * Tolerance.ROUNDING, Tolerance.ROUNDING, "logprobs");
            device.logSoftmaxBackward(x, sums, Direct.ints(device, targets), tensor(device, s[0], 1, 0, d));
            assertClose(each(s[0], n, (t, j) -> d[t] * ((j == targets[t] ? 1 : 0) - Math.exp(logits[t * n
                    + j] - lse[t]))), read(device, x), sum + 42 * Tolerance.ROUNDING, 4 * Tolerance.ROUNDING,
                    "gradient");
        }
    }

    @Test void softmaxBlocksAreThoseOfTheFormula() {
        int n = 2 * Sampling.BLOCK + 77;
        float[] logits = random(5, 3 * n);
        var maxima = tensor(device, 3, 3, 0, null);
        var sums = tensor(device, 3, 3, 0, null);
        Direct.softmaxBlocks(device, maxima, sums, tensor(device, 3, n, 2, logits));
        double[] most = new double[9];
        double[] total = new double[9];
        Arrays.fill(most, Double.NEGATIVE_INFINITY);
        for (int round = 0; round < 2; round++)
            for (int t = 0; t < 3; t++)
                for (int j = 0; j < n; j++) {
                    int at = 3 * t + j / Sampling.BLOCK;
                    if (round == 0) most[at] = Math.max(most[at], logits[t * n + j]);
                    else total[at] += Math.exp(logits[t * n + j] - most[at]);
                }
        assertClose(most, read(device, maxima), 0, 0, "maxima");
        // each exp is off by its difference's rounding and its own
        assertClose(total, read(device, sums), 0, tolerance.sameSign(Sampling.BLOCK) + 6 * Tolerance.ROUNDING,
                "sums");
    }

    private double norm(Tensor x) {
        try (var scope = device.scope()) {
            var sum = device.scratch(scope, bios.worker.device.DType.F64, 1, 1);
            device.sumOfSquares(sum, List.of(x));
            return Math.sqrt(device.readback(List.of(sum)).doubles(0)[0]);
        }
    }

    @Test void adamWStepsAreThoseOfTheFormula() {
        float[] w = random(1, 3 * 70);
        double[] weight = each(3, 70, (i, j) -> w[i * 70 + j]);
        double[] first = new double[w.length];
        double[] second = new double[w.length];
        var t = List.of(tensor(device, 3, 70, 1, w), tensor(device, 3, 70, 2, null),
                tensor(device, 3, 70, 0, null));
        for (int step = 1; step <= 20; step++) {
            float[] g = random(step, w.length);
            var gradients = List.of(tensor(device, 3, 70, 3, g));
            try (var scope = device.scope()) {
                var squares = device.scratch(scope, bios.worker.device.DType.F64, 1, 1);
                device.sumOfSquares(squares, gradients);
                // halves the gradient, but for the tiny number that is added to the norm
                double clip = norm(gradients.getFirst()) / 2;
                var notFinite = device.scratch(scope, bios.worker.device.DType.I32, 1, 1);
                device.adamW(notFinite, t.subList(0, 1), t.subList(1, 2), t.subList(2, 3), gradients, squares,
                        new AdamStep(0.01, 0.9, 0.99, 1e-8, 0.1, step, clip));
            }
            double norm = 0;
            for (float x : g) norm += (double) x * x;
            norm = Math.sqrt(norm);
            for (int i = 0; i < w.length; i++) {
                double gradient = 0.5 / (1 + 1e-6 / norm) * g[i];
                weight[i] *= 1 - 0.01 * 0.1;
                first[i] = 0.9 * first[i] + 0.1 * gradient;
                second[i] = 0.99 * second[i] + 0.01 * gradient * gradient;
                weight[i] -= 0.01 / (1 - Math.pow(0.9, step)) * first[i]
                        / (Math.sqrt(second[i] / (1 - Math.pow(0.99, step))) + 1e-8);
            }
        }
        // Twenty steps: a rounding of the moments decays by β each step, a geometric sum of at most 10 of
        // them for m; a step's own error is below its size, 0.01 to 0.02, times that of m/√v.
        assertRounded(first, read(device, t.get(1)), 20, "m");
        assertRounded(second, read(device, t.get(2)), 20, "v");
        assertRounded(weight, read(device, t.get(0)), 40, "w");
    }

    @Test void bitsDoNotDependOnTheNumberOfThreadsOrOnOtherRows() {
        try (var one = TestDevices.open(path, 1); var three = TestDevices.open(path, 3)) {
            var alone = allOf(one, 40, 1);
            var together = allOf(three, 0, 90);
            for (int i = 0; i < alone.size(); i++) {
                int n = alone.get(i).length;
                float[] row = new float[n];
                System.arraycopy(together.get(i), 40 * n, row, 0, n);
                assertArrayEquals(alone.get(i), row, 0f, "verb " + i);
            }
        }
    }

    /// The results of the verbs for rows from..from+count of the same inputs.
    private static List<float[]> allOf(Device on, int from, int count) {
        int n = 900;
        var in = new ArrayList<Tensor>();
        for (int i = 0; i < 4; i++) in.add(tensor(on, 90, n, 0, random(i, 90 * n)).rows(from, count));
        var weight = tensor(on, 1, n, 0, random(9, n));
        var y = on.tensor(count, n);
        var one = on.tensor(count, 1);
        var results = new ArrayList<float[]>();
        on.rmsNorm(y, one, in.get(0), weight, 1e-6f);
        results.add(read(on, y));
        on.rmsNormBackwardAdd(y, in.get(1), in.get(0), one, weight);
        results.add(read(on, y));
        on.swiglu(y, in.get(0), in.get(1));
        results.add(read(on, y));
        on.swigluBackward(in.get(2), in.get(3), y, in.get(0), in.get(1));
        results.add(read(on, in.get(2)));
        results.add(read(on, in.get(3)));
        var lse = on.tensor(count, 1);
        var targets = Direct.ints(on, new int[count]);
        on.logSoftmaxAt(one, lse, in.get(0), targets);
        results.add(read(on, one));
        on.logSoftmaxBackward(in.get(0), lse, targets, one);
        results.add(read(on, in.get(0)));
        return results;
    }
}
