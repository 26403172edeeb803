package bios.worker.device.cpu;

import static bios.worker.device.TestDevices.read;
import static bios.worker.device.cpu.Naive.random;
import static bios.worker.device.cpu.Naive.tensor;
import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.device.TestDevices;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.MethodSource;

/// Backward verbs against central differences of their forward verbs: for L = Σ dy·f(x), dL/dx.
@ParameterizedClass @MethodSource("bios.worker.device.TestDevices#paths")
final class LayersGradientTest {
    private static final int ROWS = 3;
    private static final int COLUMNS = 12;

    private final Device device;
    private final float[] x = random(1, ROWS * COLUMNS);
    private final float[] other = random(2, ROWS * COLUMNS);
    private final float[] dy = random(3, ROWS * COLUMNS);

    LayersGradientTest(String path) {
        device = TestDevices.open(path, 1);
    }

    @AfterEach void close() {
        device.close();
    }

    private interface Forward {
        Tensor of(Tensor x);
    }

    private Tensor matrix(float[] values) {
        return tensor(device, ROWS, values == null ? COLUMNS : values.length / ROWS, 1, values);
    }

    private double loss(Forward forward, float[] at) {
        float[] y = read(device, forward.of(matrix(at)));
        double sum = 0;
        for (int i = 0; i < y.length; i++) sum += (double) dy[i] * y[i];
        return sum;
    }

    private void agree(String what, Forward forward, float[] at, Tensor gradient) {
        float[] got = read(device, gradient);
        for (int i = 0; i < at.length; i++) {
            float[] up = at.clone();
            float[] down = at.clone();
            up[i] += 0.01f;
            down[i] -= 0.01f;
            double slope = (loss(forward, up) - loss(forward, down)) / ((double) up[i] - down[i]);
            assertEquals(slope, got[i], 2e-3 * Math.max(1, Math.abs(slope)), what + " at " + i);
        }
    }

    @Test void backwardAgreesWithFiniteDifferencesEverywhere() {
        rmsNorm();
        rope();
        swiglu();
        logSoftmax();
    }

    private void rmsNorm() {
        var weight = tensor(device, 1, COLUMNS, 0, random(4, COLUMNS));
        var inverse = device.tensor(ROWS, 1);
        Forward norm = in -> {
            var y = matrix(null);
            device.rmsNorm(y, inverse, in, weight, 1e-5f);
            return y;
        };
        norm.of(matrix(x));
        var dx = matrix(null);
        device.rmsNormBackwardAdd(dx, matrix(dy), matrix(x), inverse, weight);
        agree("rmsNorm", norm, x, dx);
    }

    private void rope() {
        var cos = tensor(device, 9, 3, 0, random(5, 27));
        var sin = tensor(device, 9, 3, 0, random(6, 27));
        var positions = Direct.ints(device, 0, 8, 3);
        Forward rope = in -> {
            device.rope(in, positions, 6, cos, sin);
            return in;
        };
        var dx = matrix(dy);
        device.ropeBackward(dx, positions, 6, cos, sin);
        agree("rope", rope, x, dx);
    }

    private void swiglu() {
        Forward ofGate = gate -> {
            var y = matrix(null);
            device.swiglu(y, gate, matrix(other));
            return y;
        };
        Forward ofUp = up -> {
            var y = matrix(null);
            device.swiglu(y, matrix(x), up);
            return y;
        };
        var dgate = matrix(null);
        var dup = matrix(null);
        device.swigluBackward(dgate, dup, matrix(dy), matrix(x), matrix(other));
        agree("swiglu of gate", ofGate, x, dgate);
        agree("swiglu of up", ofUp, other, dup);
    }

    private void logSoftmax() {
        var targets = Direct.ints(device, 0, 11, 5);
        var lse = device.tensor(ROWS, 1);
        Forward logprobs = logits -> {
            var y = device.tensor(ROWS, 1);
            device.logSoftmaxAt(y, lse, logits, targets);
            return y;
        };
        logprobs.of(matrix(x));
        var logits = matrix(x);
        device.logSoftmaxBackward(logits, lse, targets,
                tensor(device, ROWS, 1, 0, new float[] {dy[0], dy[1], dy[2]}));
        agree("logSoftmax", logprobs, x, logits);
    }
}
