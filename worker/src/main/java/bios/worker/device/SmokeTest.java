package bios.worker.device;

import static bios.protocol.Require.require;

import bios.worker.kernel.HalfFloats;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;
import java.util.Optional;

/// Opens a device and computes a norm and a product of known numbers on it: that kernels are compiled, loaded
/// and executed, that libraries answer, and that data arrive both ways.
public final class SmokeTest {
    private static final int ROWS = 48, IN = 256, OUT = 512;
    /// Numbers are rounded to bf16 on the way.
    private static final double TOLERANCE = 0.05;

    private SmokeTest() {}

    /// Runs it; returns a description of the device.
    ///
    /// @throws IllegalStateException if a result is wrong
    public static String run(DeviceSettings settings) {
        try (Device on = Devices.open(settings); var arena = Arena.ofShared(); var scope = on.scope()) {
            float[] x = new float[ROWS * IN];
            for (int i = 0; i < x.length; i++) x[i] = value(i);
            float[] weights = new float[OUT * IN];
            MemorySegment file = arena.allocate(2L * weights.length, 64);
            for (int i = 0; i < weights.length; i++) {
                weights[i] = HalfFloats.rounded(value(3 * i + 1));
                file.setAtIndex(ValueLayout.JAVA_SHORT, i, HalfFloats.toBf16(weights[i]));
            }
            var weight = on.weight(new FrozenMatrix(file, FrozenMatrix.WeightType.BF16, OUT, IN));
            Tensor input = on.upload(scope, List.of(new HostArray.Floats(ROWS, IN, x))).getFirst();
            Tensor ones = on.scratch(scope, 1, IN);
            on.fill(ones, 1);
            Tensor normed = on.scratch(scope, on.activationType(), ROWS, IN);
            on.rmsNorm(normed, on.scratch(scope, ROWS, 1), input, ones, 1e-6f);
            Tensor y = on.scratch(scope, ROWS, OUT);
            on.project(y, normed, weight, Optional.empty(), Optional.empty(), on.slots(scope, List.of()), 0,
                    Optional.empty());
            compare(on.readback(List.of(y)).floats(0), x, weights);
            return on.description();
        }
    }

    private static float value(int i) {
        return (i * 37 % 101 - 50) / 50f;
    }

    private static void compare(float[] y, float[] x, float[] weights) {
        for (int row = 0; row < ROWS; row++) {
            double squares = 0;
            for (int i = 0; i < IN; i++) squares += (double) x[row * IN + i] * x[row * IN + i];
            double inverse = 1 / Math.sqrt(squares / IN + 1e-6);
            for (int column = 0; column < OUT; column++) {
                double sum = 0;
                double size = 0;
                for (int i = 0; i < IN; i++) {
                    double term = x[row * IN + i] * inverse * weights[column * IN + i];
                    sum += term;
                    size += term * term;
                }
                float got = y[row * OUT + column];
                require(Math.abs(got - sum) <= TOLERANCE * Math.sqrt(size), "a product gives %s, not %s",
                        got, sum);
            }
        }
    }
}
