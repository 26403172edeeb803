package bios.worker.device;

import static bios.worker.device.VerbFixture.ints;
import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// A NaN among the operands of a verb is a NaN among its results, so that the checks behind it find it: a
/// maximum or an exponential function of machine instructions can drop it.
final class NotANumberTest extends Conformance {
    private static final int ROWS = 5, WIDE = 2100;
    /// Where the NaN is: in a whole vector of a kernel, in its rest, in a later block.
    private static final int[] PLACES = {0, 37, 1700, WIDE - 1};

    private final Device on = open(2);
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
    }

    /// Numbers of which one, in the middle row, is NaN.
    private Tensor spoiled(int columns, int place) {
        float[] x = random(place + columns, ROWS * columns);
        x[ROWS / 2 * columns + place] = Float.NaN;
        return tensor(on, ROWS, columns, x);
    }

    private Tensor good(int columns, long seed) {
        return tensor(on, ROWS, columns, random(seed, ROWS * columns));
    }

    /// Only the middle row of a result has NaN.
    private void assertSpoiled(Tensor result, String what) {
        float[] x = read(on, result);
        List<Integer> rows = new ArrayList<>();
        for (int i = 0; i < x.length; i++) {
            int row = i / result.columns();
            if (Float.isNaN(x[i]) && !rows.contains(row)) rows.add(row);
        }
        assertEquals(List.of(ROWS / 2), rows, what);
    }

    @Test void normsAndGatesKeepIt() {
        var weight = tensor(on, 1, WIDE, random(1, WIDE));
        for (int place : PLACES) {
            var x = spoiled(WIDE, place);
            var inverse = on.tensor(DType.F32, ROWS, 1);
            var y = on.tensor(DType.F32, ROWS, WIDE);
            on.rmsNorm(y, inverse, x, weight, 1e-5f);
            assertSpoiled(y, "rmsNorm " + place);
            on.swiglu(y, x, good(WIDE, 2));
            assertSpoiled(y, "gate " + place);
            on.swiglu(y, good(WIDE, 2), x);
            assertSpoiled(y, "up " + place);
            var dgate = on.tensor(DType.F32, ROWS, WIDE);
            on.swigluBackward(dgate, y, good(WIDE, 3), x, good(WIDE, 2));
            assertSpoiled(dgate, "gradient of a gate " + place);
            assertSpoiled(y, "gradient of up " + place);
        }
    }

    @Test void lossesKeepIt() {
        var targets = ints(on, scope, 3, 3, 3, 3, 3);
        for (int place : PLACES) {
            var x = spoiled(WIDE, place);
            var logprobs = on.tensor(DType.F32, ROWS, 1);
            var lse = on.tensor(DType.F32, ROWS, 1);
            on.logSoftmaxAt(logprobs, lse, x, targets);
            assertSpoiled(lse, "lse " + place);
            assertSpoiled(logprobs, "log-probability " + place);
            on.logSoftmaxAt(logprobs, lse, good(WIDE, 4), targets);
            on.logSoftmaxBackward(x, lse, targets, good(1, 5));
            assertSpoiled(x, "gradient of logits " + place);
        }
    }

    @Test void attentionKeepsIt() {
        for (int headDim : new int[] {8, 64, 128}) {
            var shape = new AttentionShape(2, 1, headDim, 0.3f, 0);
            for (int place : new int[] {0, headDim - 1}) {
                var out = on.tensor(DType.F32, ROWS, 2 * headDim);
                var lse = on.tensor(DType.F32, ROWS, 2);
                var sequences = on.sequences(scope, List.of(Sequence.packed(0, ROWS)));
                on.attention(out, lse, spoiled(2 * headDim, place), new KeyValues.Packed(good(headDim, 6),
                        good(headDim, 7)), sequences, shape);
                assertSpoiled(out, "query of " + headDim);
                assertSpoiled(lse, "lse of " + headDim);
            }
        }
    }

    @Test void aNaNAmongKeysSpoilsTheQueriesThatSeeIt() {
        var shape = new AttentionShape(2, 1, 64, 0.3f, 0);
        var sequences = on.sequences(scope, List.of(Sequence.packed(0, ROWS)));
        var out = on.tensor(DType.F32, ROWS, 128);
        on.attention(out, on.tensor(DType.F32, ROWS, 2), good(128, 8), new KeyValues.Packed(spoiled(64, 9),
                good(64, 7)), sequences, shape);
        for (int row = 0; row < ROWS; row++)
            assertEquals(row >= ROWS / 2, Float.isNaN(read(on, out)[row * 128]), "row " + row);
    }
}
