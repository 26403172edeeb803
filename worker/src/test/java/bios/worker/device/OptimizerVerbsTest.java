package bios.worker.device;

import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.device.Device.AdamStep;
import bios.worker.kernel.AdamW;
import bios.worker.kernel.Sums;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// The verbs on all tensors of an adapter.
final class OptimizerVerbsTest extends Conformance {
    private static final int[] SIZES = {5, 70_003, 8192, 1, 30_000};

    private final Device on = open(2);
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
    }

    private static List<float[]> arrays(int seed) {
        var all = new ArrayList<float[]>();
        for (int i = 0; i < SIZES.length; i++) all.add(random(seed + i, SIZES[i]));
        return all;
    }

    private List<Tensor> tensors(List<float[]> values) {
        return values.stream().map(x -> tensor(on, 1, x.length, x)).toList();
    }

    private double sum(List<Tensor> x) {
        var sum = on.scratch(scope, DType.F64, 1, 1);
        on.sumOfSquares(sum, x);
        return on.readback(List.of(sum)).doubles(0)[0];
    }

    /// Parts of 8192 elements in order, then tensors in order, for any number of threads.
    @Test void theSumOfSquaresHasOneOrder() {
        var x = arrays(1);
        double expected = 0;
        for (float[] slab : x) {
            double own = 0;
            for (int at = 0; at < slab.length; at += 8192) {
                float[] part = Arrays.copyOfRange(slab, at, Math.min(slab.length, at + 8192));
                own += Sums.dot(part, part, part.length);
            }
            expected += own;
        }
        assertEquals(expected, sum(tensors(x)));
        try (var single = open(1); var inner = single.scope()) {
            var sum = single.scratch(inner, DType.F64, 1, 1);
            single.sumOfSquares(sum, x.stream().map(v -> tensor(single, 1, v.length, v)).toList());
            assertEquals(expected, single.readback(List.of(sum)).doubles(0)[0]);
        }
        assertEquals(0, sum(List.of()));
    }

    @Test void listsAreAddedPairByPair() {
        var y = tensors(arrays(1));
        on.add(y, tensors(arrays(20)));
        for (int i = 0; i < SIZES.length; i++) {
            float[] expected = random(1 + i, SIZES[i]);
            float[] x = random(20 + i, SIZES[i]);
            for (int j = 0; j < expected.length; j++) expected[j] += x[j];
            assertArrayEquals(expected, read(on, y.get(i)), 0f);
        }
    }

    @Test void aStepIsThatOfTheDefinitionWithTheGradientClipped() {
        for (double clip : new double[] {0, 0.5, 1e9}) {
            var w = arrays(1);
            var m = arrays(20);
            var v = arrays(40);
            for (float[] second : v) for (int i = 0; i < second.length; i++) second[i] *= second[i];
            var g = arrays(60);
            var weights = tensors(w);
            var first = tensors(m);
            var second = tensors(v);
            var gradients = tensors(g);
            var sum = on.scratch(scope, DType.F64, 1, 1);
            on.sumOfSquares(sum, gradients);
            var notFinite = on.scratch(scope, DType.I32, 1, 1);
            on.adamW(notFinite, weights, first, second, gradients, sum,
                    new AdamStep(1e-3, 0.9, 0.99, 1e-8, 0.1, 3, clip));
            assertEquals(0, on.readback(List.of(notFinite)).ints(0)[0]);
            double norm = Math.sqrt(sum(gradients));
            float scale = (float) (clip > 0 ? Math.min(1, clip / (norm + 1e-6)) : 1);
            var rule = AdamW.at(scale, 1e-3, 0.9, 0.99, 1e-8, 0.1, 3);
            for (int i = 0; i < SIZES.length; i++) {
                rule.step(w.get(i), m.get(i), v.get(i), g.get(i), SIZES[i]);
                assertArrayEquals(w.get(i), read(on, weights.get(i)), 0f);
                assertArrayEquals(m.get(i), read(on, first.get(i)), 0f);
                assertArrayEquals(v.get(i), read(on, second.get(i)), 0f);
                assertArrayEquals(random(60 + i, SIZES[i]), read(on, gradients.get(i)), 0f);
            }
            if (clip == 0.5) assertEquals(true, scale < 1);
        }
    }

    /// One number at a place of one tensor, and what it makes not finite. Clipping to 1 rescues what only the
    /// size of the gradient overflows.
    private record Spoilt(String what, int tensor, int at, float g, float v, AdamStep step, int expected) {}

    private static AdamStep step(double rate, double eps, double clip) {
        return new AdamStep(rate, 0.9, 0.99, eps, 0.1, 3, clip);
    }

    private static List<Spoilt> spoilt() {
        return List.of(
                new Spoilt("NaN", 1, 70_002, Float.NaN, 1, step(1e-3, 1e-8, 0), AdamW.GRADIENT),
                new Spoilt("clipped NaN", 1, 8192, Float.NaN, 1, step(1e-3, 1e-8, 1), AdamW.GRADIENT),
                new Spoilt("clipped infinity", 3, 0, Float.NEGATIVE_INFINITY, 1, step(1e-3, 1e-8, 1),
                        AdamW.GRADIENT),
                new Spoilt("1e24", 0, 4, 1e24f, 1, step(1e-3, 1e-8, 0), AdamW.MOMENTS),
                new Spoilt("1e24 clipped", 0, 4, 1e24f, 1, step(1e-3, 1e-8, 1), 0),
                new Spoilt("3e38 clipped", 4, 29_999, 3e38f, 1, step(1e-3, 1e-8, 1), 0),
                new Spoilt("the largest that is squared", 2, 17, 1e19f, 1, step(1e-3, 1e-8, 0), 0),
                new Spoilt("rate", 2, 17, 1, 1, step(1e39, 1e-8, 0), AdamW.WEIGHTS),
                new Spoilt("0 / 0", 2, 17, 0, 0, step(1e-3, 0, 0), AdamW.WEIGHTS));
    }

    @Test void aStepThatIsNotFiniteSomewhereChangesNothingAnywhere() {
        for (Spoilt s : spoilt()) {
            var w = arrays(1);
            var m = arrays(20);
            var v = arrays(40);
            for (float[] second : v) for (int i = 0; i < second.length; i++) second[i] *= second[i];
            var g = arrays(60);
            g.get(s.tensor)[s.at] = s.g;
            v.get(s.tensor)[s.at] = s.v;
            if (s.g == 0) m.get(s.tensor)[s.at] = 0;
            var all = List.of(tensors(w), tensors(m), tensors(v), tensors(g));
            var sum = on.scratch(scope, DType.F64, 1, 1);
            var notFinite = on.scratch(scope, DType.I32, 1, 1);
            on.sumOfSquares(sum, all.get(3));
            on.adamW(notFinite, all.get(0), all.get(1), all.get(2), all.get(3), sum, s.step);
            int bits = on.readback(List.of(notFinite)).ints(0)[0];
            assertEquals(s.expected, Integer.lowestOneBit(bits), s.what);
            for (int i = 0; i < SIZES.length; i++) {
                float[] after = read(on, all.get(0).get(i));
                assertEquals(s.expected != 0, Arrays.equals(w.get(i), after), s.what);
                for (float x : after) assertTrue(Float.isFinite(x), s.what);
                if (s.expected == 0) continue;
                assertArrayEquals(m.get(i), read(on, all.get(1).get(i)), 0f, s.what);
                assertArrayEquals(v.get(i), read(on, all.get(2).get(i)), 0f, s.what);
            }
        }
    }
}
