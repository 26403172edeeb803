package bios.worker.kernel;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.device.Draw;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.function.IntPredicate;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/// Drawing tokens: frequencies, restrictions, ties, random numbers.
final class SamplingTest {
    private static final int DRAWS = 100_000;

    private static Draw draw(double temperature, int topK, double topP) {
        return new Draw(0, temperature, topK, topP, 0, 0, 0);
    }

    @Test void withoutTemperatureTheLargestWinsAndOfEqualOnesTheLowestId() {
        var greedy = draw(0, 1, 0.1);
        assertEquals(1, Sampling.fromScaled(new float[] {-1, 3, 3, 2}, greedy, 0.99).token());
        assertEquals(0, Sampling.fromScaled(new float[] {0, -0f}, greedy, 0.99).token());
        assertEquals(2, Sampling.fromScaled(new float[] {Float.NaN, -5, -4}, greedy, 0.99).token());
    }

    @Test void frequenciesFollowTheSoftmaxOfScaledLogits() {
        float[] logits = {1, 0, -1, 2, Float.NEGATIVE_INFINITY};
        for (double temperature : new double[] {0.5, 1, 2}) {
            var draw = draw(temperature, -1, 1);
            assertFrequencies(softmax(logits, temperature, i -> true), draw, logits);
        }
    }

    @Test void topKKeepsTheKLargest() {
        float[] logits = {1, 0, 1, 2, 1.5f};
        assertFrequencies(softmax(logits, 1, i -> i >= 3), draw(1, 2, 1), logits);
        // two tokens are equal: the lower id is kept
        assertFrequencies(softmax(logits, 1, i -> i >= 3 || i == 0), draw(1, 3, 1), logits);
        assertFrequencies(softmax(logits, 1, i -> true), draw(1, 99, 1), logits);
    }

    @Test void topPKeepsTheSmallestSetThatIsLikelyEnough() {
        float[] logits = {(float) Math.log(0.5), (float) Math.log(0.3), (float) Math.log(0.15),
                (float) Math.log(0.05)};
        assertFrequencies(softmax(logits, 1, i -> i <= 0), draw(1, -1, 0.4), logits);
        assertFrequencies(softmax(logits, 1, i -> i <= 1), draw(1, -1, 0.6), logits);
        assertFrequencies(softmax(logits, 1, i -> i <= 2), draw(1, -1, 0.9), logits);
        // after top_k, probabilities are relative to the k tokens
        assertFrequencies(softmax(logits, 1, i -> i <= 0), draw(1, 2, 0.6), logits);
    }

    @Test void topPAgreesWithSortingTheWholeVocabulary() {
        var random = new Random(7);
        for (int round = 0; round < 200; round++) {
            float[] logits = new float[1 + random.nextInt(500)];
            double spread = random.nextDouble() * 8;
            for (int i = 0; i < logits.length; i++) logits[i] = (float) (random.nextGaussian() * spread);
            double topP = 1 - Math.pow(10, -4 * random.nextDouble());
            double uniform = random.nextDouble();
            assertEquals(bySorting(logits, topP, uniform),
                    Sampling.fromScaled(logits, draw(1, -1, topP), uniform).token(), "round " + round);
        }
    }

    @Test void drawingFromOneBlockOfTheVocabularyFollowsTheSoftmaxOfAll() {
        float[] logits = new float[3 * Sampling.BLOCK - 5];
        Arrays.fill(logits, Float.NEGATIVE_INFINITY);
        logits[7] = 1;
        logits[Sampling.BLOCK] = 2;
        logits[Sampling.BLOCK + 1] = 0;
        logits[logits.length - 1] = 2;
        var draw = draw(1, -1, 1);
        double[] expected = softmax(logits, 1, _ -> true);
        int[] counts = new int[logits.length];
        for (int i = 0; i < DRAWS; i++) counts[simply(draw, logits, Sampling.uniform(11, 0, i))]++;
        for (int i = 0; i < counts.length; i++)
            assertEquals(expected[i], counts[i] / (double) DRAWS,
                    5 * Math.sqrt(expected[i] * (1 - expected[i]) / DRAWS), "token " + i);
        // the lowest id of equal logits
        assertEquals(Sampling.BLOCK, simply(draw(0, -1, 1), logits, 0.99));
    }

    /// The token by the algorithm that the sampler uses if [Sampling#simple] is true.
    private static int simply(Draw draw, float[] logits, double uniform) {
        assertTrue(Sampling.simple(draw));
        int blocks = Math.ceilDiv(logits.length, Sampling.BLOCK);
        float[] maxima = new float[blocks];
        float[] sums = new float[blocks];
        for (int b = 0; b < blocks; b++) {
            float[] own = block(logits, b);
            maxima[b] = own[Ranking.best(own)];
            // an underflow counts as the smallest value of exp
            for (float z : own) sums[b] += Math.max(1e-38f, (float) Math.exp(z - maxima[b]));
        }
        Sampling.Place place = Sampling.block(maxima, sums, draw, uniform);
        return place.block() * Sampling.BLOCK
                + Sampling.within(block(logits, place.block()), maxima[place.block()], draw, place.rest());
    }

    private static float[] block(float[] logits, int b) {
        return Arrays.copyOfRange(logits, b * Sampling.BLOCK,
                Math.min(logits.length, (b + 1) * Sampling.BLOCK));
    }

    @Test void aDrawHasItsOwnRandomNumberAndScalesACopy() {
        float[] logits = {1, 0, -1, 2};
        for (var kind : List.of(draw(0, -1, 1), draw(1, -1, 1), draw(1, 2, 1), draw(0.7, -1, 0.9)))
            for (int i = 0; i < 100; i++) {
                var draw = new Draw(0, kind.temperature(), kind.topK(), kind.topP(), 11, 2, i);
                float[] scaled = logits.clone();
                Sampling.scale(scaled, draw.temperature());
                double uniform = Sampling.uniform(11, 2, i);
                assertEquals(Sampling.simple(draw) ? simply(draw, logits, uniform)
                        : Sampling.fromScaled(scaled, draw, uniform).token(), Sampling.token(logits, draw));
            }
        assertArrayEquals(new float[] {1, 0, -1, 2}, logits);
    }

    @Test void aTinyTemperatureIsGreedy() {
        float[] logits = {1, 4, 3};
        var draw = draw(1e-300, -1, 1);
        Sampling.scale(logits, draw.temperature());
        assertEquals(1, Sampling.fromScaled(logits, draw, 0.999).token());
    }

    @Test void rankingGivesTheLargestBestFirst() {
        float[] values = {3, Float.NaN, 5, -2, 5, -0f, 0};
        assertArrayEquals(new int[] {2, 4, 0}, Ranking.top(values, 3));
        assertArrayEquals(new int[] {2, 4, 0, 5, 6}, Ranking.top(values, 5));
        assertArrayEquals(new int[] {2, 4, 0, 5, 6}, Ranking.downFrom(values, 0));
    }

    @Test void theRandomNumberDependsOnSeedSampleAndTokenAlone() {
        assertEquals(Sampling.uniform(5, 1, 2), Sampling.uniform(5, 1, 2));
        assertNotEquals(Sampling.uniform(5, 1, 2), Sampling.uniform(5, 2, 1));
        assertNotEquals(Sampling.uniform(5, 1, 2), Sampling.uniform(6, 1, 2));
        double mean = IntStream.range(0, DRAWS).mapToDouble(i -> Sampling.uniform(i / 1000, i % 10, i / 10))
                .average().orElseThrow();
        assertEquals(0.5, mean, 0.005);
    }

    private static void assertFrequencies(double[] expected, Draw draw, float[] logits) {
        float[] scaled = logits.clone();
        Sampling.scale(scaled, draw.temperature());
        int[] counts = new int[logits.length];
        for (int i = 0; i < DRAWS; i++)
            counts[Sampling.fromScaled(scaled, draw, Sampling.uniform(11, 0, i)).token()]++;
        for (int i = 0; i < counts.length; i++) {
            double deviation = Math.sqrt(expected[i] * (1 - expected[i]) / DRAWS);
            assertEquals(expected[i], counts[i] / (double) DRAWS, 5 * deviation, Arrays.toString(counts));
            assertTrue(expected[i] > 0 || counts[i] == 0, Arrays.toString(counts));
        }
    }

    private static double[] softmax(float[] logits, double temperature,
            IntPredicate kept) {
        double[] p = new double[logits.length];
        for (int i = 0; i < p.length; i++) p[i] = kept.test(i) ? Math.exp(logits[i] / temperature) : 0;
        double sum = Arrays.stream(p).sum();
        return Arrays.stream(p).map(x -> x / sum).toArray();
    }

    private static int bySorting(float[] logits, double topP, double uniform) {
        int[] order = IntStream.range(0, logits.length).boxed()
                .sorted(Comparator.comparingDouble((Integer i) -> -logits[i]).thenComparing(i -> i))
                .mapToInt(i -> i).toArray();
        double[] p = softmax(logits, 1, i -> true);
        double kept = 0;
        int n = 0;
        while (n < order.length && kept < topP) kept += p[order[n++]];
        double left = uniform * kept;
        for (int i = 0; i < n; i++) {
            left -= p[order[i]];
            if (left < 0) return order[i];
        }
        return order[n - 1];
    }
}
