package bios.worker.device;

import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.rounded;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.protocol.run.LossFunction;
import bios.worker.device.Device.AdamStep;
import bios.worker.device.FactorTable.Factor;
import bios.worker.device.VerbFixture.Factors;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.api.Test;

/// Every verb on bf16 operands: its results are those that it gives for the same numbers in fp32, rounded.
final class Bf16VerbsTest extends Conformance {
    private static final int T = 70;
    private static final AttentionShape SHAPE = new AttentionShape(4, 2, 6, 0.4f, 0);

    private final Device on = open(2);
    private final Arena arena = Arena.ofShared();
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
        arena.close();
    }

    private interface Verb {
        void run(Bf16VerbsTest test, Tensor[] t);
    }

    /// A verb with the shapes of its operands.
    private record Case(String name, int[][] shapes, Verb verb) {
        @Override public String toString() {
            return name;
        }
    }

    private static Case of(String name, Verb verb, int[]... shapes) {
        return new Case(name, shapes, verb);
    }

    private static int[] s(int rows, int columns) {
        return new int[] {rows, columns};
    }

    static Stream<Case> cases() {
        var all = new ArrayList<Case>();
        all.add(of("add lists", (c, t) -> c.on.add(List.of(t[0], t[1]), List.of(t[2], t[3])), s(1, 9000),
                s(2, 3), s(1, 9000), s(2, 3)));
        all.add(of("rmsNorm", (c, t) -> c.on.rmsNorm(t[0], t[1], t[2], t[3], 1e-5f), s(T, 33), s(T, 1),
                s(T, 33), s(1, 33)));
        all.add(of("rmsNormBackwardAdd", (c, t) -> c.on.rmsNormBackwardAdd(t[0], t[1], t[2], t[3], t[4]),
                s(T, 33), s(T, 33), s(T, 33), s(T, 1), s(1, 33)));
        all.add(of("rope", (c, t) -> c.on.rope(t[0], c.positions(), 6, t[1], t[2]), s(T, 24), s(T, 3),
                s(T, 3)));
        all.add(of("ropeBackward", (c, t) -> c.on.ropeBackward(t[0], c.positions(), 6, t[1], t[2]), s(T, 24),
                s(T, 3), s(T, 3)));
        all.add(of("swiglu", (c, t) -> c.on.swiglu(t[0], t[1], t[2]), s(T, 33), s(T, 33), s(T, 33)));
        all.add(of("swigluBackward", (c, t) -> c.on.swigluBackward(t[0], t[1], t[2], t[3], t[4]), s(T, 33),
                s(T, 33), s(T, 33), s(T, 33), s(T, 33)));
        all.add(of("swigluBackward in place", (c, t) -> c.on.swigluBackward(t[0], t[1], t[2], t[0], t[1]),
                s(T, 33), s(T, 33), s(T, 33)));
        all.add(of("attention", Bf16VerbsTest::attend, s(T, 24), s(T, 4), s(T, 24), s(T, 12), s(T, 12)));
        all.add(of("attentionBackward", Bf16VerbsTest::attendBackward, s(T, 24), s(T, 12), s(T, 12),
                s(T, 24), s(T, 24), s(T, 4), s(T, 24), s(T, 12), s(T, 12)));
        all.add(of("lowRank", (c, t) -> c.on.lowRank(List.of(t[0]), t[1], c.slots(t, 2, 3, 2, 3), List.of(0)),
                s(T, 3), s(T, 33), s(33, 3), s(3, 20)));
        all.add(of("project", (c, t) -> c.on.project(t[0], t[1], c.weight(), Optional.of(t[2]),
                Optional.of(t[3]), c.slots(t, 5, 6, 5, 6), 0, Optional.of(t[4])), s(T, 20), s(T, 33),
                s(1, 20), s(T, 20), s(T, 3), s(33, 3), s(3, 20)));
        for (boolean add : new boolean[] {false, true})
            all.add(of("projectBack, add " + add, (c, t) -> c.on.projectBack(Optional.of(t[0]), add, t[1],
                    t[2], c.weight(), c.slots(t, 4, 5, 6, 7), 0, Optional.of(t[3])), s(T, 33), s(T, 20),
                    s(T, 33), s(T, 3), s(33, 3), s(3, 20), s(33, 3), s(3, 20)));
        all.add(of("logSoftmaxAt", (c, t) -> c.on.logSoftmaxAt(t[0], t[1], t[2], c.positions()), s(T, 1),
                s(T, 1), s(T, 99)));
        all.add(of("logSoftmaxBackward", (c, t) -> c.on.logSoftmaxBackward(t[0], t[1], c.positions(), t[2]),
                s(T, 99), s(T, 1), s(T, 1)));
        all.add(of("lossGradient", (c, t) -> c.on.lossGradient(t[0], t[1], new LossTerms(LossFunction.PPO,
                t[2], Optional.of(t[3]), Optional.empty(), 0.8, 1.2, 0)), s(T, 1), s(T, 1), s(T, 1),
                s(T, 1)));
        all.add(of("adamW", (c, t) -> c.step(t), s(1, 9000),
                s(1, 9000), s(1, 9000), s(1, 9000)));
        return all.stream();
    }

    /// A step whose second moment is positive; without that nothing is applied.
    private void step(Tensor[] t) {
        float[] squares = read(on, t[2]);
        for (int i = 0; i < squares.length; i++) squares[i] *= squares[i];
        on.write(t[2], rounded(squares), 0);
        var notFinite = on.scratch(scope, DType.I32, 1, 1);
        on.adamW(notFinite, List.of(t[0]), List.of(t[1]), List.of(t[2]), List.of(t[3]),
                on.tensor(DType.F64, 1, 1), new AdamStep(0.1, 0.9, 0.99, 1e-8, 0.1, 1, 0));
        assertEquals(0, on.readback(List.of(notFinite)).ints(0)[0]);
    }

    private Tensor positions() {
        int[] at = new int[T];
        for (int i = 0; i < T; i++) at[i] = (i * 7 + 3) % T;
        return VerbFixture.ints(on, scope, at);
    }

    private Weight weight() {
        return on.weight(VerbFixture.frozen(arena, FrozenMatrix.WeightType.F32, 20, 33, random(99, 20 * 33)));
    }

    private Slots slots(Tensor[] t, int a, int b, int da, int db) {
        return on.slots(scope, List.of(new Slot(2, 30, 0.5f, new Factors(1, Map.of(0, new Factor(t[a],
                t[b]))), Optional.of(new Factors(1, Map.of(0, new Factor(t[da], t[db])))))));
    }

    private Sequences sequences() {
        return on.sequences(scope, List.of(Sequence.packed(0, 3), Sequence.packed(3, T - 3)));
    }

    private void attend(Tensor[] t) {
        on.attention(t[0], t[1], t[2], new KeyValues.Packed(t[3], t[4]), sequences(), SHAPE);
    }

    private void attendBackward(Tensor[] t) {
        on.attentionBackward(t[0], t[1], t[2], t[3], t[4], t[5], t[6], new KeyValues.Packed(t[7], t[8]),
                sequences(), SHAPE);
    }

    private Tensor[] tensors(Case c, boolean[] narrow) {
        var tensors = new Tensor[c.shapes.length];
        for (int i = 0; i < tensors.length; i++) {
            int[] s = c.shapes[i];
            tensors[i] = tensor(on, narrow[i] ? DType.BF16 : DType.F32, s[0], s[1], s[0] == 1 ? 0 : i % 3,
                    rounded(random(i + 1, s[0] * s[1])));
        }
        return tensors;
    }

    @ParameterizedTest @MethodSource("cases") void resultsAreThoseOfFp32Rounded(Case c) {
        int n = c.shapes.length;
        var wide = tensors(c, new boolean[n]);
        c.verb.run(this, wide);
        for (int which = -1; which < n; which++) {
            boolean[] narrow = new boolean[n];
            for (int i = 0; i < n; i++) narrow[i] = which == -1 || which == i;
            var got = tensors(c, narrow);
            c.verb.run(this, got);
            for (int i = 0; i < n; i++)
                assertArrayEquals(narrow[i] ? rounded(read(on, wide[i])) : read(on, wide[i]),
                        read(on, got[i]), 0f, "operand " + i + " with bf16 " + which);
        }
    }

    @Test void sumsOfSquaresAreThoseOfTheWidenedElements() {
        float[] x = rounded(random(1, 20_000));
        var sum = on.scratch(scope, DType.F64, 1, 2).columns(0, 1);
        var narrow = on.scratch(scope, DType.F64, 1, 2).columns(1, 1);
        on.sumOfSquares(sum, List.of(tensor(on, 1, x.length, x)));
        on.sumOfSquares(narrow, List.of(tensor(on, DType.BF16, 1, x.length, 0, x)));
        assertEquals(on.readback(List.of(sum)).doubles(0)[0], on.readback(List.of(narrow)).doubles(0)[0]);
    }

    @Test void drawsAndRankingsAreThoseOfTheWidenedLogits() {
        float[] x = rounded(random(1, 3 * 2000));
        var draws = on.draws(scope, List.of(new Draw(0, 0, -1, 1, 1, 0, 0), new Draw(1, 1, -1, 1, 1, 0, 0),
                new Draw(2, 0.7, 50, 0.9, 1, 0, 0), new Draw(2, 1.7, -1, 0.9, 1, 1, 0)));
        Readback[] got = new Readback[2];
        for (int i = 0; i < 2; i++) {
            var dtype = i == 0 ? DType.F32 : DType.BF16;
            var tokens = on.scratch(scope, DType.I32, 4, 1);
            var logprobs = on.scratch(scope, dtype, 4, 1);
            var ids = on.scratch(scope, DType.I32, 3, 9);
            var best = on.scratch(scope, dtype, 3, 9);
            on.top(ids, best, tensor(on, dtype, 3, 2000, 0, x), tensor(on, 3, 1, new float[3]));
            var own = on.scratch(scope, dtype, 4, 1);
            on.sample(tokens, logprobs, own, tensor(on, dtype, 3, 2000, 0, x), draws);
            got[i] = on.readback(List.of(tokens, logprobs, ids, best, own));
        }
        assertArrayEquals(got[0].ints(0), got[1].ints(0));
        assertArrayEquals(rounded(got[0].floats(1)), got[1].floats(1), 0f);
        assertArrayEquals(got[0].ints(2), got[1].ints(2));
        assertArrayEquals(rounded(got[0].floats(3)), got[1].floats(3), 0f);
        assertArrayEquals(rounded(got[0].floats(4)), got[1].floats(4), 0f);
    }
}
