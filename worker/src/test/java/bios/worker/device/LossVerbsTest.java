package bios.worker.device;

import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.protocol.run.LossFunction;
import bios.worker.kernel.Losses;
import java.util.List;
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

    /// Several targets of a row, some twice and some without a weight.
    @Test void severalTargetsOfARowAddUp() {
        int rows = 5, n = 300, each = 7;
        float[] x = random(1, rows * n);
        float[] d = random(2, rows * each);
        int[] ids = new int[rows * each];
        for (int i = 0; i < ids.length; i++) ids[i] = (i * 37 + 3) % n;
        for (int row = 0; row < rows; row++) {
            ids[row * each + 4] = ids[row * each + 1];
            d[row * each + 6] = 0;
        }
        double[] at = new double[rows * each], gradient = new double[rows * n];
        for (int row = 0; row < rows; row++) {
            double sum = 0;
            for (int j = 0; j < n; j++) sum += Math.exp(x[row * n + j]);
            for (int k = 0; k < each; k++) {
                int i = row * each + k;
                at[i] = x[row * n + ids[i]] - Math.log(sum);
                for (int j = 0; j < n; j++)
                    gradient[row * n + j] += d[i] * ((j == ids[i] ? 1 : 0) - Math.exp(x[row * n + j]) / sum);
            }
        }
        var logits = tensor(on, DType.F32, rows, n, 2, x);
        var logprobs = on.tensor(1, rows * each).matrix(0, rows, each);
        var lse = on.tensor(DType.F32, rows, 1);
        var targets = on.upload(scope, List.of(new HostArray.Ints(1, ids.length, ids))).getFirst()
                .matrix(0, rows, each);
        on.logSoftmaxAt(logprobs, lse, logits, targets);
        double sum = tolerance().sameSign(n) + 6 * Tolerance.ROUNDING;
        assertClose(at, read(on, logprobs), sum, 2 * Tolerance.ROUNDING, "logprobs");
        on.logSoftmaxBackward(logits, lse, targets, tensor(on, rows, each, d));
        assertClose(gradient, read(on, logits), each * (sum + 12 * Tolerance.ROUNDING),
                4 * Tolerance.ROUNDING, "gradient");
    }

    @Test void targetsWithoutWeightChangeNoBitOfARow() {
        int rows = 3, n = 170, each = 4;
        float[] x = random(3, rows * n);
        float[] d = random(4, rows);
        int[] one = {5, 169, 64};
        int[] many = new int[rows * each];
        float[] padded = new float[rows * each];
        for (int row = 0; row < rows; row++) {
            many[row * each] = one[row];
            padded[row * each] = d[row];
        }
        var alone = tensor(on, rows, n, x);
        var beside = tensor(on, rows, n, x);
        var lse = on.tensor(DType.F32, rows, 1);
        var logprob = on.tensor(DType.F32, rows, 1);
        var logprobs = on.tensor(DType.F32, rows, each);
        var ids = VerbFixture.ints(on, scope, one);
        var more = on.upload(scope, List.of(new HostArray.Ints(rows, each, many))).getFirst();
        on.logSoftmaxAt(logprob, lse, alone, ids);
        on.logSoftmaxAt(logprobs, lse, beside, more);
        for (int row = 0; row < rows; row++)
            assertEquals(read(on, logprob)[row], read(on, logprobs)[row * each]);
        on.logSoftmaxBackward(alone, lse, ids, tensor(on, rows, 1, d));
        on.logSoftmaxBackward(beside, lse, more, tensor(on, rows, each, padded));
        org.junit.jupiter.api.Assertions.assertArrayEquals(read(on, alone), read(on, beside), 0f);
    }

    /// A position's own thresholds count instead of the loss's; NaN: it has none.
    @ParameterizedTest @EnumSource(names = {"PPO", "CISPO"}) void thresholdsOfAPositionAreItsOwn(
            LossFunction function) {
        int n = 120;
        float[] logprobs = random(1, n), sampled = random(2, n), weights = random(3, n);
        float[] low = new float[n], high = new float[n], expected = new float[n];
        for (int i = 0; i < n; i++) {
            low[i] = i % 3 == 0 ? Float.NaN : 0.4f + 0.005f * i;
            high[i] = i % 4 == 0 ? Float.NaN : 1.05f + 0.01f * i;
            var own = new Losses(function, i % 3 == 0 ? 0.8 : low[i], i % 4 == 0 ? 1.3 : high[i], 0);
            expected[i] = (float) own.derivative(logprobs[i], sampled[i], weights[i]);
        }
        var terms = new LossTerms(function, tensor(on, 60, 2, weights),
                Optional.of(tensor(on, 60, 2, sampled)), Optional.of(new LossTerms.Bounds(
                        tensor(on, 60, 2, low), tensor(on, 60, 2, high))), 0.8, 1.3, 0);
        var gradient = on.tensor(DType.F32, 60, 2);
        on.lossGradient(gradient, tensor(on, 60, 2, logprobs), terms);
        org.junit.jupiter.api.Assertions.assertArrayEquals(expected, read(on, gradient), 0f);
        var part = on.tensor(DType.F32, 5, 2);
        on.lossGradient(part, tensor(on, 60, 2, logprobs).rows(20, 5), terms.rows(20, 5));
        assertEquals(expected[43], read(on, part)[3]);
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
                policy ? Optional.of(tensor(on, n, 1, sampled)) : Optional.empty(), Optional.empty(), 0.8,
                1.3, 0.4);
        var gradient = on.tensor(DType.F32, n, 1);
        on.lossGradient(gradient, tensor(on, n, 1, logprobs), terms);
        org.junit.jupiter.api.Assertions.assertArrayEquals(expected, read(on, gradient), 0f);
        var part = on.tensor(DType.F32, 5, 1);
        on.lossGradient(part, tensor(on, n, 1, logprobs).rows(50, 5), terms.rows(50, 5));
        assertEquals(expected[53], read(on, part)[3]);
        if (function != LossFunction.DRO) assertEquals(0f, read(on, gradient)[7]);
    }
}
