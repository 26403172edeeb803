package bios.worker.device;

import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.tensor;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.worker.device.Device.AdamStep;
import bios.worker.device.Device.ClippedStep;
import bios.worker.device.FactorTable.Factor;
import bios.worker.device.VerbFixture.Factors;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// The verbs of the seam give the bits of those that they replace. Goes with the old verbs.
final class OldVerbsAgreeTest {
    private final Device on = VerbFixture.open(2);
    private final Arena arena = Arena.ofShared();
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
        arena.close();
    }

    private void same(Tensor expected, Tensor actual) {
        assertArrayEquals(on.read(expected), read(on, actual), 0f);
    }

    @Test void projectionsForwardAndBackward() {
        for (var dtype : FrozenMatrix.DType.values())
            for (int[] shape : new int[][] {{100, 64, 96, 8, 8}, {33, 130, 70, 4, 16}, {3, 48, 31, 1, 5},
                    {300, 600, 128, 32, 7}})
                projection(dtype, shape[0], shape[1], shape[2], new int[] {shape[3], shape[4]});
    }

    private void projection(FrozenMatrix.DType dtype, int rows, int in, int out, int[] ranks) {
        var w = on.weight(VerbFixture.frozen(arena, dtype, out, in, random(1, out * in)));
        var x = tensor(on, rows, in, random(2, rows * in));
        var dy = tensor(on, rows, out, random(3, rows * out));
        int[] first = {0, rows / 3};
        int[] count = {rows / 3, rows - rows / 3};
        var slots = new ArrayList<Slot>();
        var old = new ArrayList<LowRank>();
        var back = new ArrayList<LowRank>();
        var gradients = new ArrayList<Factor>();
        var oldGradients = new ArrayList<Factor>();
        var groups = new ArrayList<Device.Group>();
        for (int i = 0; i < 2; i++) {
            var f = Factors.factor(on, in, ranks[i], out, random(5 + i, in * ranks[i]),
                    random(7 + i, ranks[i] * out));
            gradients.add(new Factor(on.tensor(in, ranks[i]), on.tensor(ranks[i], out)));
            oldGradients.add(new Factor(on.tensor(in, ranks[i]), on.tensor(ranks[i], out)));
            slots.add(new Slot(first[i], count[i], 0.3f, new Factors(1, Map.of(0, f)),
                    Optional.of(new Factors(1, Map.of(0, gradients.get(i))))));
            var low = on.tensor(count[i], ranks[i]);
            groups.add(new Device.Group(List.of(low), x.rows(first[i], count[i]), List.of(f.a()), 0.3f));
            old.add(new LowRank(first[i], low, f.b()));
            back.add(new LowRank(first[i], on.tensor(count[i], ranks[i]), f.a()));
        }
        var pass = on.slots(scope, slots);
        var low = on.tensor(rows, pass.rank(0));
        on.multiplyByEach(groups);
        on.lowRank(List.of(low), x, pass, List.of(0));
        var y = on.tensor(rows, out);
        var expected = on.tensor(rows, out);
        var onto = tensor(on, rows, out, random(9, rows * out));
        on.project(expected, x, w, Optional.empty(), Optional.of(onto), old);
        on.project(y, x, w, Optional.empty(), Optional.of(onto), pass, 0, Optional.of(low));
        same(expected, y);
        for (int i = 0; i < 2; i++) {
            var here = dy.rows(first[i], count[i]);
            on.multiplyByTransposed(back.get(i).low(), here, old.get(i).factor(), 0.3f);
            on.outerAdd(oldGradients.get(i).b(), old.get(i).low(), here, 1);
            on.outerAdd(oldGradients.get(i).a(), x.rows(first[i], count[i]), back.get(i).low(), 1);
        }
        for (boolean add : new boolean[] {false, true}) {
            var dx = tensor(on, rows, in, random(10, rows * in));
            var dxOld = tensor(on, rows, in, random(10, rows * in));
            on.projectBack(dxOld, dy, w, add, back);
            for (var g : gradients) {
                on.fill(g.a(), 0);
                on.fill(g.b(), 0);
            }
            on.projectBack(Optional.of(dx), add, dy, x, w, pass, 0, Optional.of(low));
            same(dxOld, dx);
        }
        for (int i = 0; i < 2; i++) {
            same(oldGradients.get(i).a(), gradients.get(i).a());
            same(oldGradients.get(i).b(), gradients.get(i).b());
        }
    }

    @Test void attentionRopeAndLogSoftmax() {
        var shape = new AttentionShape(14, 2, 64, 0.125f, 0);
        int rows = 200;
        var q = tensor(on, rows, 896, random(1, rows * 896));
        var k = tensor(on, rows, 128, random(2, rows * 128));
        var v = tensor(on, rows, 128, random(3, rows * 128));
        var blocks = new ArrayList<Tensor>();
        var valueBlocks = new ArrayList<Tensor>();
        for (int i = 0; i < rows; i += 64) {
            blocks.add(k.rows(i, Math.min(64, rows - i)));
            valueBlocks.add(v.rows(i, Math.min(64, rows - i)));
        }
        Tensor[] out = {on.tensor(rows, 896), on.tensor(rows, 896)};
        Tensor[] lse = {on.tensor(rows, 14), on.tensor(rows, 14)};
        on.attention(out[0], lse[0], q, List.of(new Span(0, rows, 0, blocks, valueBlocks)), shape);
        on.attention(out[1], lse[1], q, new KeyValues.Packed(k, v),
                on.sequences(scope, List.of(Sequence.packed(0, rows))), shape);
        same(out[0], out[1]);
        same(lse[0], lse[1]);
        int[] positions = new int[rows];
        for (int i = 0; i < rows; i++) positions[i] = rows - 1 - i;
        var cos = tensor(on, rows, 32, random(4, rows * 32));
        var sin = tensor(on, rows, 32, random(5, rows * 32));
        on.rope(out[0], positions, 64, cos, sin);
        on.rope(out[1], VerbFixture.ints(on, scope, positions), 64, cos, sin);
        same(out[0], out[1]);
        on.logSoftmaxAt(lse[0].columns(0, 1), lse[0].columns(1, 1), out[0], positions);
        on.logSoftmaxAt(lse[1].columns(0, 1), lse[1].columns(1, 1), out[1],
                VerbFixture.ints(on, scope, positions));
        same(lse[0], lse[1]);
    }

    private static float[] positive(int i) {
        float[] x = random(i + 1, 20_000 + i % 3);
        for (int j = 0; j < x.length; j++) x[j] = Math.abs(x[j]);
        return x;
    }

    @Test void aStepOfAllSlabs() {
        List<List<Tensor>> both = List.of(new ArrayList<>(), new ArrayList<>());
        for (var lists : both)
            for (int i = 0; i < 12; i++) lists.add(tensor(on, 1, 20_000 + i % 3, positive(i)));
        double sum = 0;
        for (int i = 9; i < 12; i++) sum += on.sumOfSquares(both.get(0).get(i));
        var total = on.scratch(scope, DType.F64, 1, 1);
        on.sumOfSquares(total, both.get(1).subList(9, 12));
        assertEquals(sum, on.readback(List.of(total)).doubles(0)[0]);
        double norm = Math.sqrt(sum);
        float clip = (float) Math.min(1, 0.5 / (norm + 1e-6));
        for (int i = 0; i < 3; i++)
            on.adamW(both.get(0).get(i), both.get(0).get(3 + i), both.get(0).get(6 + i), both.get(0).get(9 + i),
                    clip, new AdamStep(1e-3, 0.9, 0.95, 1e-8, 0.1, 7));
        on.adamW(both.get(1).subList(0, 3), both.get(1).subList(3, 6), both.get(1).subList(6, 9),
                both.get(1).subList(9, 12), total, new ClippedStep(1e-3, 0.9, 0.95, 1e-8, 0.1, 7, 0.5));
        for (int i = 0; i < 12; i++) same(both.get(0).get(i), both.get(1).get(i));
    }
}
