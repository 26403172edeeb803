package bios.worker.device.cpu;

import static bios.worker.device.TestDevices.read;
import static bios.worker.device.TestDevices.write;
import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.cpu.Naive.dots;
import static bios.worker.device.cpu.Naive.doubles;
import static bios.worker.device.cpu.Naive.plus;
import static bios.worker.device.cpu.Naive.random;
import static bios.worker.device.cpu.Naive.tensor;
import static bios.worker.device.cpu.Naive.transposed;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.worker.device.Activations;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import bios.worker.device.Tolerance;
import bios.worker.kernel.HalfFloats;
import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import com.typesafe.config.ConfigValueFactory;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.function.BiFunction;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Every product against sums in double precision on every path of this process; and the rule that a row's
/// bits do not depend on other rows.
final class ProductsParityTest {
    private static final int[][] SHAPES = {{1, 1, 1}, {1, 16, 9}, {2, 5, 130}, {7, 33, 64}, {64, 70, 31},
            {131, 600, 48}};

    private final Arena arena = Arena.ofShared();

    @AfterEach void close() {
        arena.close();
    }

    static List<String> paths() {
        return TestDevices.paths();
    }

    private static Device open(String path, int threads, Activations activations) {
        return Devices.open(DeviceSettings.ofThreads(threads).withPath(path).withActivations(activations));
    }

    private FrozenMatrix frozen(WeightType dtype, int rows, int columns, float[] values) {
        // An odd offset, because matrices of model files can have any offset.
        var memory = arena.allocate((long) rows * columns * dtype.bytes() + 6, 64).asSlice(6);
        for (int i = 0; i < values.length; i++) {
            switch (dtype) {
                case BF16 -> memory.set(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i,
                        HalfFloats.toBf16(values[i]));
                case F16 ->
                        memory.set(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i, Float.floatToFloat16(values[i]));
                case F32 -> memory.set(ValueLayout.JAVA_FLOAT_UNALIGNED, 4L * i, values[i]);
            }
        }
        return new FrozenMatrix(memory, dtype, rows, columns);
    }

    /// The weights as the product multiplies them.
    private static float[] stored(float[] w, WeightType dtype) {
        float[] y = w.clone();
        for (int i = 0; i < y.length; i++) {
            y[i] = switch (dtype) {
                case BF16 -> HalfFloats.rounded(w[i]);
                case F16 -> Float.float16ToFloat(Float.floatToFloat16(w[i]));
                case F32 -> w[i];
            };
        }
        return y;
    }

    /// The operand by which the path multiplies a weight of this shape.
    private static float[] operands(float[] x, WeightType dtype, String path, Activations activations,
            int[] s) {
        float[] y = x.clone();
        for (int i = 0; dtype == WeightType.BF16 && i < y.length; i++)
            y[i] = CpuPath.of(path).operand(activations, x[i], s[1], s[2]);
        return y;
    }

    @ParameterizedTest @MethodSource("paths")
    void frozenProductsAgreeInEveryDtypeAndDirection(String path) {
        for (var activations : Activations.values())
            try (var on = open(path, 2, activations)) {
                for (var dtype : WeightType.values()) {
                    for (int[] s : SHAPES) frozenProductsAgree(on, path, activations, dtype, s);
                }
            }
    }

    @ParameterizedTest @MethodSource("paths")
    void projectionsWithAllTheirTermsAgreeWithTheSumOfTheseTerms(String path) {
        var tolerance = Tolerance.of(path);
        try (var on = open(path, 2, Activations.EXACT)) {
            for (int[] s : new int[][] {{29, 33, 64}, {70, 16, 9}, {500, 300, 130}, {9, 48, 35}}) {
                int m = s[0], n = s[1], k = s[2];
                var weight = on.weight(frozen(WeightType.F32, n, k, random(1, n * k)));
                var x = tensor(on, m, k, 3, random(2, m * k));
                var bias = tensor(on, 1, n, 0, random(3, n));
                var onto = tensor(on, m, n, 2, random(4, m * n));
                int first = m / 3;
                var low = List.of(tensor(on, first, 4, 0, random(5, first * 4)),
                        tensor(on, 2, 20, 0, random(6, 40)));
                var b = List.of(tensor(on, 4, n, 0, random(7, 4 * n)), tensor(on, 20, n, 0, random(8,
                        20 * n)));
                var y = tensor(on, m, n, 1, null);
                Direct.project(on, y, x, weight, bias, onto,
                        List.of(Direct.correction(1, low.get(0), b.get(0)),
                                Direct.correction(m - 3, low.get(1), b.get(1))));
                var expected = tensor(on, m, n, 0, null);
                Direct.multiply(on, expected, x, weight);
                for (int row = 0; row < m; row++)
                    on.add(List.of(expected.rows(row, 1)), List.of(bias));
                on.add(List.of(expected), List.of(onto));
                Direct.multiplyBy(on, expected.rows(1, first), low.get(0), b.get(0), 1, true);
                Direct.multiplyBy(on, expected.rows(m - 3, 2), low.get(1), b.get(1), 1, true);
                // both are sums of k products and of 4 or 20 of a correction, and two more terms
                double sums = 2 * tolerance.sum(k + 20);
                assertClose(doubles(read(on, expected)), read(on, y), sums, 8 * Tolerance.ROUNDING,
                        path + Arrays.toString(s));

                var dx = tensor(on, m, k, 1, random(9, m * k));
                var before = tensor(on, m, k, 0, read(on, dx));
                var a = List.of(tensor(on, k, 4, 0, random(7, 4 * k)), tensor(on, k, 20, 0, random(8,
                        20 * k)));
                var corrections = List.of(Direct.correction(1, low.get(0), a.get(0)),
                        Direct.correction(m - 3, low.get(1), a.get(1)));
                Direct.projectBack(on, dx, y, weight, true, corrections);
                Direct.addInputGradient(on, before, y, weight);
                Direct.multiplyByTransposed(on, before.rows(1, first), low.get(0), a.get(0), 1, true);
                Direct.multiplyByTransposed(on, before.rows(m - 3, 2), low.get(1), a.get(1), 1, true);
                double back = 2 * (tolerance.sum(n, rms(read(on, y)), Tolerance.EVEN) + tolerance.sum(20));
                assertClose(doubles(read(on, before)), read(on, dx), back, 8 * Tolerance.ROUNDING,
                        path + " back " + Arrays.toString(s));
                var over = tensor(on, m, k, 1, random(9, m * k));
                Direct.projectBack(on, over, y, weight, false, corrections);
                on.add(List.of(over), List.of(tensor(on, m, k, 0, random(9, m * k))));
                assertClose(doubles(read(on, before)), read(on, over), back, 8 * Tolerance.ROUNDING,
                        path + " over " + Arrays.toString(s));
            }
        }
    }

    private static double rms(float[] x) {
        double sum = 0;
        for (float v : x) sum += (double) v * v;
        return Math.sqrt(sum / x.length);
    }

    @ParameterizedTest @MethodSource("paths")
    void rowsKeepTheirBitsWhateverTheirNumberAndTheCutsOfTheInnerDimension(String path) {
        for (var activations : path.equals("plain") ? List.of(Activations.MIXED)
                : List.of(Activations.values())) rowsKeepTheirBits(path, activations);
    }

    private void rowsKeepTheirBits(String path, Activations activations) {
        try (var on = open(path, 2, activations)) {
            for (int[] shape : new int[][] {{200, 130}, {70, 1300}, {600, 515}}) {
                for (var dtype : List.of(WeightType.BF16, WeightType.F32)) {
                    int n = shape[0], k = shape[1];
                    var weight = on.weight(frozen(dtype, n, k, random(1, n * k)));
                    var x = tensor(on, 500, k, 0, random(2, 500 * k));
                    var all = tensor(on, 500, n, 0, null);
                    Direct.multiply(on, all, x, weight);
                    var back = tensor(on, 500, k, 0, null);
                    Direct.projectBack(on, back, all, weight, false, List.of());
                    for (int rows : new int[] {1, 2, 13, 14, 15, 16, 17, 18, 19, 28, 29, 60, 130, 449}) {
                        var part = tensor(on, rows, n, 0, null);
                        Direct.multiply(on, part, x.rows(7, rows), weight);
                        assertArrayEquals(read(on, all.rows(7, rows)), read(on, part));
                        var dx = tensor(on, rows, k, 0, null);
                        Direct.projectBack(on, dx, part, weight, false, List.of());
                        assertArrayEquals(read(on, back.rows(7, rows)), read(on, dx));
                    }
                }
            }
        }
    }

    private void frozenProductsAgree(Device on, String path, Activations activations, WeightType dtype,
            int[] s) {
        String what = "%s %s %s %s ".formatted(path, activations, dtype, Arrays.toString(s));
        var tolerance = Tolerance.of(path);
        float[] w = random(1, s[1] * s[2]);
        var weight = on.weight(frozen(dtype, s[1], s[2], w));
        w = stored(w, dtype);
        float[] x = random(2, s[0] * s[2]);
        var y = tensor(on, s[0], s[1], 3, random(3, s[0] * s[1]));
        Direct.multiply(on, y, tensor(on, s[0], s[2], 5, x), weight);
        assertClose(dots(operands(x, dtype, path, activations, s), w, s[0], s[2], s[1]), read(on, y),
                tolerance.sum(s[2]), Tolerance.ROUNDING, what + "x·Wᵀ");
        float[] dy = random(4, s[0] * s[1]);
        float[] before = random(5, s[0] * s[2]);
        var dx = tensor(on, s[0], s[2], 1, before);
        Direct.addInputGradient(on, dx, tensor(on, s[0], s[1], 2, dy), weight);
        double[] expected = dots(operands(dy, dtype, path, activations, s), transposed(w, s[1], s[2]), s[0],
                s[1], s[2]);
        assertClose(plus(before, expected, 1), read(on, dx), tolerance.sum(s[1] + 1), 2 * Tolerance.ROUNDING,
                what + "dy·W");
    }

    @ParameterizedTest @MethodSource("paths") void productsOfTensorsAgreeOverStridesAndScales(String path) {
        try (var device = TestDevices.open(path, 2)) {
            productsOfTensorsAgree(device, Tolerance.of(path));
        }
    }

    private static void productsOfTensorsAgree(Device device, Tolerance tolerance) {
        for (int[] s : SHAPES) {
            // a factor that is scaled first is rounded once more
            double sum = tolerance.sum(s[2] + 2);
            for (float scale : new float[] {1, -0.75f}) {
                float[] x = random(1, s[0] * s[2]);
                float[] a = random(2, s[1] * s[2]);
                float[] before = random(3, s[0] * s[1]);
                var left = tensor(device, s[0], s[2], 3, x);
                var rows = tensor(device, s[1], s[2], 1, a);
                var columns = tensor(device, s[2], s[1], 7, transposed(a, s[1], s[2]));
                double[] product = dots(x, a, s[0], s[2], s[1]);
                var y = tensor(device, s[0], s[1], 2, before);
                Direct.multiplyByTransposed(device, y, left, rows, scale, false);
                assertClose(plus(null, product, scale), read(device, y), sum, 2 * Tolerance.ROUNDING,
                        "x·aᵀ");
                write(device, y, before);
                Direct.multiplyByTransposed(device, y, left, rows, scale, true);
                assertClose(plus(before, product, scale), read(device, y), sum, 2 * Tolerance.ROUNDING,
                        "+ x·aᵀ");
                Direct.multiplyBy(device, y, left, columns, scale, false);
                assertClose(plus(null, product, scale), read(device, y), sum, 2 * Tolerance.ROUNDING,
                        "x·b");
                write(device, y, before);
                Direct.multiplyBy(device, y, left, columns, scale, true);
                assertClose(plus(before, product, scale), read(device, y), sum, 2 * Tolerance.ROUNDING,
                        "+ x·b");
            }
        }
    }

    @ParameterizedTest @MethodSource("paths") void weightGradientsAgreeOverManyRows(String path) {
        try (var device = TestDevices.open(path, 2)) {
            weightGradientsAgree(device, Tolerance.of(path));
        }
    }

    private static void weightGradientsAgree(Device device, Tolerance tolerance) {
        for (int rows : new int[] {1, 2, 63, 256, 257, 600}) {
            for (int[] s : new int[][] {{1, 1}, {8, 130}, {130, 8}, {70, 33}, {16, 1100}, {600, 16}}) {
                float[] y = random(1, rows * s[0]);
                float[] x = random(2, rows * s[1]);
                float[] before = random(3, s[0] * s[1]);
                var g = tensor(device, s[0], s[1], 5, before);
                Direct.outerAdd(device, g, tensor(device, rows, s[0], 1, y),
                        tensor(device, rows, s[1], 3, x), 0.5f);
                double[] sum = dots(transposed(y, rows, s[0]), transposed(x, rows, s[1]), s[0], rows, s[1]);
                assertClose(plus(before, sum, 0.5), read(device, g), tolerance.sum(rows + 1),
                        2 * Tolerance.ROUNDING, "yᵀ·x of " + rows);
            }
        }
    }

    @ParameterizedTest @MethodSource("paths") void aRowHasTheSameBitsForAnyOtherRowsInTheCall(String path) {
        int[][] shapes = {{300, 17}, {16, 896}, {896, 8}, {896, 896}, {128, 896}, {8, 4864}, {2000, 64},
                {1024, 4096}};
        try (var device = TestDevices.open(path, 2)) {
            // the reference implementation computes each row alone: small shapes suffice, and large ones take
            // minutes
            for (int[] s : path.equals("plain") ? Arrays.copyOf(shapes, 3) : shapes) ownBits(device, s);
        }
    }

    private void ownBits(Device device, int[] s) {
        float[] w = random(1, s[0] * s[1]);
        var plain = tensor(device, s[0], s[1], 0, w);
        var b = tensor(device, s[1], s[0], 0, transposed(w, s[0], s[1]));
        var bf16 = device.weight(frozen(WeightType.BF16, s[0], s[1], w));
        var fp32 = device.weight(frozen(WeightType.F32, s[0], s[1], w));
        ownBits(device, "bf16", s[1], s[0], (y, x) -> Direct.multiply(device, y, x, bf16));
        ownBits(device, "fp32", s[1], s[0], (y, x) -> Direct.multiply(device, y, x, fp32));
        ownBits(device, "bf16 backward", s[0], s[1],
                (y, x) -> Direct.addInputGradient(device, y, x, bf16));
        ownBits(device, "fp32 backward", s[0], s[1],
                (y, x) -> Direct.addInputGradient(device, y, x, fp32));
        ownBits(device, "x·aᵀ", s[1], s[0],
                (y, x) -> Direct.multiplyByTransposed(device, y, x, plain, 2, false));
        ownBits(device, "+ x·aᵀ", s[1], s[0],
                (y, x) -> Direct.multiplyByTransposed(device, y, x, plain, 1, true));
        ownBits(device, "x·b", s[1], s[0], (y, x) -> Direct.multiplyBy(device, y, x, b, 1, false));
        ownBits(device, "+ x·b", s[1], s[0], (y, x) -> Direct.multiplyBy(device, y, x, b, 0.5f, true));
    }

    private interface Verb {
        void run(Tensor y, Tensor x);
    }

    private void ownBits(Device device, String what, int in, int out, Verb verb) {
        int most = 300;
        var x = tensor(device, most, in, 16, random(7, most * in));
        var dense = tensor(device, most, in, 0, random(7, most * in));
        float[] before = random(8, most * out);
        var whole = tensor(device, most, out, 0, before);
        verb.run(whole, x);
        float[] expected = read(device, whole);
        for (int rows : new int[] {1, 2, 3, 7, 13, 64, 100, 127, 129}) {
            for (int from : new int[] {1, 150}) {
                var y = tensor(device, rows, out, 5,
                        Arrays.copyOfRange(before, from * out, (from + rows) * out));
                verb.run(y, x.rows(from, rows));
                assertArrayEquals(Arrays.copyOfRange(expected, from * out, (from + rows) * out),
                        read(device, y), 0f,
                        "%s [%d, %d], %d rows from %d".formatted(what, in, out, rows, from));
                device.free(y);
            }
        }
        write(device, whole, before);
        verb.run(whole, dense);
        assertArrayEquals(expected, read(device, whole), 0f, what + " of dense rows");
        device.free(x);
        device.free(dense);
        device.free(whole);
    }

    @ParameterizedTest @MethodSource("paths") void bitsDoNotDependOnTheNumberOfThreads(String path) {
        BiFunction<Device, FrozenMatrix, List<float[]>> all = (on, matrix) -> {
            var x = tensor(on, 150, 512, 0, random(1, 150 * 512));
            var y = tensor(on, 150, 700, 0, null);
            Direct.multiply(on, y, x, on.weight(matrix));
            var g = tensor(on, 700, 512, 0, null);
            Direct.outerAdd(on, g, y, x, 1);
            var dx = tensor(on, 150, 512, 0, null);
            Direct.multiplyBy(on, dx, y, g, 0.1f, false);
            return List.of(read(on, y), read(on, g), read(on, dx));
        };
        var matrix = frozen(WeightType.BF16, 700, 512, random(3, 700 * 512));
        try (var one = TestDevices.open(path, 1); var three = TestDevices.open(path, 3)) {
            var expected = all.apply(one, matrix);
            var got = all.apply(three, matrix);
            for (int i = 0; i < 3; i++) assertArrayEquals(expected.get(i), got.get(i), 0f);
        }
    }

    @ParameterizedTest @MethodSource("paths")
    void splitActivationsAreMultipliedAlmostAsTheyAre(String path) {
        try (var device = open(path, 2, Activations.SPLIT)) {
            splitActivationsAreMultipliedAlmostAsTheyAre(device, Tolerance.of(path));
        }
    }

    private void splitActivationsAreMultipliedAlmostAsTheyAre(Device device, Tolerance tolerance) {
        float[] w = stored(random(1, 300 * 200), WeightType.BF16);
        float[] x = random(2, 70 * 200);
        var y = tensor(device, 70, 300, 0, null);
        Direct.multiply(device, y, tensor(device, 70, 200, 0, x),
                device.weight(frozen(WeightType.BF16, 300, 200, w)));
        double[] exact = dots(x, w, 70, 200, 300);
        // each of 200 terms below 1 is off by at most the error of its activation
        assertClose(exact, read(device, y), 200 * Tolerance.SPLIT + tolerance.sum(200), Tolerance.ROUNDING,
                "x·Wᵀ");
        for (float value : x) assertEquals(value, HalfFloats.split(value), Math.abs(value) * Tolerance.SPLIT);
    }

    @Test void theSettingSelectsHowActivationsAreMultiplied() {
        var program = ConfigFactory.load();
        assertEquals(Optional.empty(), Activations.of(program));
        for (var how : Activations.values()) {
            String name = how.name().toLowerCase(Locale.ROOT);
            assertEquals(Optional.of(how), Activations.of(program.withValue("bios.engine.bf16-activations",
                    ConfigValueFactory.fromAnyRef(name))));
        }
        assertThrows(ConfigException.BadValue.class,
                () -> Activations.of(program.withValue("bios.engine.bf16-activations",
                        ConfigValueFactory.fromAnyRef("fp8"))));
    }

    @Test void roundingToBf16IsToNearestEven() {
        assertEquals(1f, HalfFloats.rounded(1.00390625f));
        assertEquals(1.015625f, HalfFloats.rounded(1.01171875f));
        assertEquals(Float.POSITIVE_INFINITY, HalfFloats.rounded(Float.MAX_VALUE));
        assertEquals(Float.NaN, HalfFloats.rounded(Float.NaN));
    }
}
