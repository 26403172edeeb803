package bios.worker.device;

import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.protocol.run.LossFunction;
import bios.worker.kernel.Losses;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Log-probabilities, the gradients of losses by them, and their gradient by logits.
final class LossVerbsTest extends Conformance {
    private final Device on = open(2);
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
    }

    @Test void logProbabilitiesAndTheirGradientAgreeWithDoublePrecision() {
        for (int[] s : new int[][] {{1, 2}, {3, 66}, {20, 1030}}) {
            int rows = s[0], n = s[1];
            float[] x = random(1, rows * n);
            float[] d = random(2, rows);
            int[] targets = new int[rows];
            for (int i = 0; i < rows; i++) targets[i] = (i * 31 + n - 1) % n;
            double[] lse = new double[rows], at = new double[rows], gradient = new double[rows * n];
            for (int i = 0; i < rows; i++) {
                double sum = 0;
                for (int j = 0; j < n; j++) sum += Math.exp(x[i * n + j]);
                lse[i] = Math.log(sum);
                at[i] = x[i * n + targets[i]] - lse[i];
                for (int j = 0; j < n; j++)
                    gradient[i * n + j] = d[i]
                            * ((j == targets[i] ? 1 : 0) - Math.exp(x[i * n + j] - lse[i]));
            }
            var logits = tensor(on, DType.F32, rows, n, 2, x);
            var logprobs = on.tensor(DType.F32, rows, 1);
            var sums = on.tensor(DType.F32, rows, 1);
            var ids = VerbFixture.ints(on, scope, targets);
            on.logSoftmaxAt(logprobs, sums, logits, ids);
            // log turns the relative error of Σ exp into an absolute one
            double sum = tolerance().sameSign(n) + 6 * Tolerance.ROUNDING;
            assertClose(lse, read(on, sums), sum, Tolerance.ROUNDING, "lse");
            assertClose(at, read(on, logprobs), sum, 2 * Tolerance.ROUNDING, "logprobs");
            on.logSoftmaxBackward(logits, sums, ids, tensor(on, rows, 1, d));
            // exp(x - lse) is off by the error of lse, and by that of a difference of up to 8
            assertClose(gradient, read(on, logits), sum + 10 * Tolerance.ROUNDING, 4 * Tolerance.ROUNDING,
                    "gradient");
        }
    }

    @Test void aTargetOutsideTheVocabularyIsRefused() {
        var x = on.tensor(DType.F32, 2, 5);
        var one = on.tensor(DType.F32, 2, 1);
        var outside = VerbFixture.ints(on, scope, 1, 5);
        var short1 = VerbFixture.ints(on, scope, 1);
        assertThrows(IllegalStateException.class, () -> {
            on.logSoftmaxAt(one, one, x, outside);
            read(on, one);
        });
        assertThrows(IllegalStateException.class, () -> on.logSoftmaxAt(one, one, x, short1));
    }

    @ParameterizedTest @EnumSource void lossGradientsAreThoseOfTheDefinition(LossFunction function) {
        int n = 200;
        float[] logprobs = random(1, n);
        float[] sampled = random(2, n);
        float[] weights = random(3, n);
        for (int i = 0; i < n; i += 7) weights[i] = 0;
        logprobs[7] = 2000;     // exp(l - q) is infinite, and the weight 0
        var losses = new Losses(function, 0.8, 1.3, 0.4);
        boolean policy = function != LossFunction.CROSS_ENTROPY;
        float[] expected = new float[n];
        for (int i = 0; i < n; i++)
            expected[i] = (float) losses.derivative(logprobs[i], policy ? sampled[i] : 0, weights[i]);
        var terms = new LossTerms(function, tensor(on, DType.F32, n, 1, 1, weights),
                policy ? Optional.of(tensor(on, n, 1, sampled)) : Optional.empty(), 0.8, 1.3, 0.4);
        var gradient = on.tensor(DType.F32, n, 1);
        on.lossGradient(gradient, tensor(on, n, 1, logprobs), terms);
        org.junit.jupiter.api.Assertions.assertArrayEquals(expected, read(on, gradient), 0f);
        var part = on.tensor(DType.F32, 5, 1);
        on.lossGradient(part, tensor(on, n, 1, logprobs).rows(50, 5), terms.rows(50, 5));
        assertEquals(expected[53], read(on, part)[3]);
        if (function != LossFunction.DRO) assertEquals(0f, read(on, gradient)[7]);
    }
}
