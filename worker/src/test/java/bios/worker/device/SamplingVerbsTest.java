package bios.worker.device;

import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.worker.kernel.Ranking;
import bios.worker.kernel.Sampling;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Draws and rankings on the device against their definition.
final class SamplingVerbsTest extends Conformance {
    private static final int ROWS = 5;
    private static final int WORDS = 2500;

    private final Device on = open(2);
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
    }

    private static float[] logits(int seed) {
        var random = new SplittableRandom(seed);
        float[] x = new float[ROWS * WORDS];
        for (int i = 0; i < x.length; i++) x[i] = (float) random.nextGaussian() * 3;
        return x;
    }

    /// Temperatures and restrictions of every kind, several of them on one row.
    private static List<Draw> draws() {
        var draws = new ArrayList<Draw>();
        for (int row = 0; row < ROWS; row++)
            for (double temperature : new double[] {0, 0.7, 1, 2.5})
                for (int topK : new int[] {-1, 1, 40, 99_999})
                    for (double topP : new double[] {1, 0.8, 0.1})
                        draws.add(new Draw(row, temperature, topK, topP, 77, draws.size() % 3,
                                draws.size() / 3));
        return draws;
    }

    private Readback sample(Tensor logits, Draws draws) {
        var tokens = on.scratch(scope, DType.I32, draws.count(), 1);
        var logprobs = on.scratch(scope, DType.F32, draws.count(), 1);
        var own = on.scratch(scope, DType.F32, draws.count(), 1);
        on.sample(tokens, logprobs, own, logits, draws);
        return on.readback(List.of(tokens, logprobs, own));
    }

    /// In the distribution that is drawn from: softmax, the largest, then the fewest that are likely enough.
    private static double logprob(float[] row, Draw draw, int token) {
        double temperature = draw.temperature() == 0 ? 1 : draw.temperature();
        var ranked = new ArrayList<Integer>();
        for (int id : Ranking.top(row, row.length)) ranked.add(id);
        int most = draw.temperature() == 0 || draw.topK() == -1 ? row.length
                : Math.min(draw.topK(), row.length);
        double all = 0;
        for (int id : ranked.subList(0, most)) all += Math.exp(row[id] / temperature);
        double kept = 0;
        for (int id : ranked.subList(0, most)) {
            if (draw.temperature() != 0 && kept >= draw.topP() * all) break;
            kept += Math.exp(row[id] / temperature);
        }
        return row[token] / temperature - Math.log(kept);
    }

    @Test void tokensAreThoseOfTheDefinitionForAnyDrawsOfTheSameRow() {
        float[] x = logits(1);
        var all = draws();
        var got = sample(tensor(on, DType.F32, ROWS, WORDS, 3, x), on.draws(scope, all));
        for (int i = 0; i < all.size(); i++) {
            float[] row = VerbFixture.rows(x, WORDS, all.get(i).row(), 1);
            assertEquals(Sampling.token(row, all.get(i)), got.ints(0)[i], all.get(i).toString());
            assertEquals(logprob(row, all.get(i), got.ints(0)[i]), got.floats(1)[i], 3e-5);
        }
    }

    /// Whatever a draw does to the logits, the model's own log-probabilities have the bits of
    /// [Device#logSoftmaxAt]; where nothing is done, both are the same.
    @Test void theModelsOwnLogProbabilitiesAreThoseOfTraining() {
        float[] x = logits(5);
        var all = draws();
        var logits = tensor(on, DType.F32, ROWS, WORDS, 3, x);
        var got = sample(logits, on.draws(scope, all));
        assertArrayEquals(x, read(on, logits), "logits are changed");
        for (int i = 0; i < all.size(); i++) {
            var draw = all.get(i);
            int[] targets = new int[ROWS];
            targets[draw.row()] = got.ints(0)[i];
            var own = on.scratch(scope, DType.F32, ROWS, 1);
            on.logSoftmaxAt(own, on.scratch(scope, DType.F32, ROWS, 1), logits,
                    VerbFixture.ints(on, scope, targets));
            assertEquals(read(on, own)[draw.row()], got.floats(2)[i], draw.toString());
            if (Sampling.simple(draw)) assertEquals(got.floats(1)[i], got.floats(2)[i]);
        }
    }

    @Test void logitsThatAreNotFiniteGiveNoLogProbability() {
        for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY}) {
            float[] x = logits(6);
            for (int row = 0; row < ROWS - 1; row++) x[row * WORDS + 1700 + row] = bad;
            var all = draws();
            var got = sample(tensor(on, ROWS, WORDS, x), on.draws(scope, all));
            for (int i = 0; i < all.size(); i++) {
                boolean good = all.get(i).row() == ROWS - 1;
                assertEquals(good, Float.isFinite(got.floats(1)[i]) && Float.isFinite(got.floats(2)[i]),
                        bad + " " + all.get(i));
            }
        }
    }

    @Test void aDrawHasTheSameBitsAloneAndInAPart() {
        float[] x = logits(2);
        var all = draws();
        var together = sample(tensor(on, ROWS, WORDS, x), on.draws(scope, all));
        for (int i = 0; i < all.size(); i += 7) {
            var alone = sample(tensor(on, ROWS, WORDS, x), on.draws(scope, List.of(all.get(i))));
            assertEquals(together.ints(0)[i], alone.ints(0)[0]);
            assertEquals(together.floats(1)[i], alone.floats(1)[0]);
            assertEquals(together.floats(2)[i], alone.floats(2)[0]);
        }
        int each = all.size() / ROWS;
        var part = sample(tensor(on, ROWS, WORDS, x).rows(2, 2),
                on.draws(scope, all).part(2 * each, 2 * each, 2));
        assertArrayEquals(Arrays.copyOfRange(together.ints(0), 2 * each, 4 * each), part.ints(0));
        assertArrayEquals(Arrays.copyOfRange(together.floats(1), 2 * each, 4 * each), part.floats(1));
    }

    @Test void samplesOfOnePromptShareARowAndDiffer() {
        var draws = new ArrayList<Draw>();
        for (int i = 0; i < 50; i++) draws.add(new Draw(0, 1.5, -1, 0.99, 5, i, 0));
        var got = sample(tensor(on, 1, WORDS, VerbFixture.rows(logits(3), WORDS, 0, 1)),
                on.draws(scope, draws));
        assertEquals(true, Arrays.stream(got.ints(0)).distinct().count() > 20);
    }

    @Test void aRowOutsideTheLogitsIsRefused() {
        var x = tensor(on, ROWS, WORDS, logits(1));
        var outside = on.draws(scope, List.of(new Draw(ROWS, 1, -1, 1, 1, 0, 0)));
        assertThrows(IllegalStateException.class, () -> sample(x, outside));
    }

    @Test void theMostLikelyTokensAreRankedWithTheirLogProbabilities() {
        float[] x = logits(4);
        x[3] = x[9] = 50;
        var logits = tensor(on, DType.F32, ROWS, WORDS, 1, x);
        var lse = on.scratch(scope, DType.F32, ROWS, 1);
        on.logSoftmaxAt(on.scratch(scope, DType.F32, ROWS, 1), lse, logits,
                VerbFixture.ints(on, scope, new int[ROWS]));
        for (int k : new int[] {1, 20, WORDS}) {
            var ids = on.scratch(scope, DType.I32, ROWS, k);
            var logprobs = on.scratch(scope, DType.F32, ROWS, k);
            on.top(ids, logprobs, logits, lse);
            var got = on.readback(List.of(ids, logprobs));
            float[] sums = read(on, lse);
            for (int i = 0; i < ROWS; i++) {
                float[] row = VerbFixture.rows(x, WORDS, i, 1);
                int[] best = Ranking.top(row, k);
                assertArrayEquals(best, Arrays.copyOfRange(got.ints(0), i * k, (i + 1) * k));
                for (int j = 0; j < k; j++)
                    assertEquals(row[best[j]] - sums[i], got.floats(1)[i * k + j]);
            }
            assertEquals(3, got.ints(0)[0]);
        }
    }
}
