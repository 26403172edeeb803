package bios.worker.device;

import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.VerbFixture.product;
import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.rows;
import static bios.worker.device.VerbFixture.tensor;
import static bios.worker.device.VerbFixture.transposed;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.worker.device.FactorTable.Factor;
import bios.worker.device.VerbFixture.Factors;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Projections with several adapters of different ranks, forward and backward, against sums in double
/// precision.
final class AdapterProductsTest extends Conformance {
    private static final int SITE = 2;
    private static final int IN = 33, OUT = 70, ROWS = 90;
    /// Rows of each slot, and its rank at the site (0: no adapter there).
    private static final int[][] SLOTS = {{1, 40, 4}, {41, 1, 20}, {45, 30, 0}, {80, 7, 1}, {88, 0, 3}};

    private final Device on = open(2);
    private final Arena arena = Arena.ofShared();
    private final Device.Scope scope = on.scope();

    @AfterEach void close() {
        scope.close();
        on.close();
        arena.close();
    }

    /// An adapter's factors in host memory.
    private record Adapter(int row, int count, int rank, float scale, float[] a, float[] b, FactorTable table,
            FactorTable gradient) {
        Slot slot() {
            return new Slot(row, count, scale, table, Optional.of(gradient));
        }
    }

    private List<Adapter> adapters(int in, int out, int[][] slots) {
        var all = new ArrayList<Adapter>();
        for (int[] s : slots) {
            int rank = s[2];
            float[] a = random(10 + s[0], in * rank);
            float[] b = random(20 + s[0], rank * out);
            Map<Integer, Factor> at = rank == 0 ? Map.of()
                    : Map.of(SITE, Factors.factor(on, in, rank, out, a, b));
            Map<Integer, Factor> gradient = rank == 0 ? Map.of() : Map.of(SITE, Factors.factor(on, in, rank,
                    out, random(30, in * rank), random(31, rank * out)));
            all.add(new Adapter(s[0], s[1], rank, 0.5f + s[0] / 64f, a, b, new Factors(SITE + 1, at),
                    new Factors(SITE + 1, gradient)));
        }
        return all;
    }

    private Weight weight(float[] values) {
        return on.weight(VerbFixture.frozen(arena, FrozenMatrix.WeightType.F32, OUT, IN, values));
    }

    private Slots slots(List<Adapter> adapters) {
        return on.slots(scope, adapters.stream().map(Adapter::slot).toList());
    }

    private Optional<Tensor> low(Tensor x, Slots slots) {
        if (slots.rank(SITE) == 0) return Optional.empty();
        var low = on.scratch(scope, DType.F32, x.rows(), slots.rank(SITE));
        on.lowRank(List.of(low), x, slots, List.of(SITE));
        return Optional.of(low);
    }

    /// The error of y: the sum of a product, of two more terms, and of the largest rank's correction.
    private static double projected(List<Adapter> adapters) {
        return tolerance().sum(IN + 2)
                + adapters.stream().mapToDouble(a -> 2 * through(IN, a.rank)).max().orElse(0);
    }

    /// The error of a sum of `outer` products with sums of `inner` products, whose root mean square is √inner
    /// times that of one: its own, and that of the inner sums. Scales are below 2.
    private static double through(int inner, int outer) {
        double size = Math.sqrt(inner) * Tolerance.EVEN * Tolerance.EVEN;
        return tolerance().sum(outer, size, Tolerance.EVEN)
                + Math.sqrt(outer) * Tolerance.EVEN * tolerance().sum(inner) * 2;
    }

    /// y += s·x·A·B on the rows of each adapter.
    private static void correct(double[] y, float[] x, List<Adapter> adapters, int in, int out) {
        for (var a : adapters) {
            double[] low = product(rows(x, in, a.row, a.count), a.a, a.count, in, a.rank, a.scale);
            for (int i = 0; i < a.count; i++)
                for (int j = 0; j < out; j++)
                    for (int r = 0; r < a.rank; r++)
                        y[(a.row + i) * out + j] += low[i * a.rank + r] * a.b[r * out + j];
        }
    }

    @Test void slotsHaveALargestRankAndCanBeSplit() {
        var slots = slots(adapters(IN, OUT, SLOTS));
        assertEquals(20, slots.rank(SITE));
        assertEquals(0, slots.rank(SITE - 1));
        assertEquals(4, slots.rows(0, 41).rank(SITE));
        assertEquals(1, slots.rows(42, 48).rank(SITE));
        assertEquals(0, slots.rows(45, 30).rank(SITE));
        assertEquals(0, on.slots(scope, List.of()).rank(SITE));
        var back = adapters(IN, OUT, new int[][] {{5, 3, 1}, {7, 3, 1}});
        assertThrows(IllegalStateException.class, () -> slots(back));
    }

    @Test void projectionsAddEachSlotsCorrectionToItsOwnRows() {
        for (int[][] given : new int[][][] {SLOTS, {}, {{0, ROWS, 3}}, {{0, 1, 1}, {5, 63, 8}}}) {
            var adapters = adapters(IN, OUT, given);
            float[] w = random(1, OUT * IN);
            float[] x = random(2, ROWS * IN);
            float[] bias = random(3, OUT);
            float[] onto = random(4, ROWS * OUT);
            var weight = weight(w);
            var input = tensor(on, DType.F32, ROWS, IN, 3, x);
            var slots = slots(adapters);
            var y = on.tensor(DType.F32, ROWS, OUT + 1).columns(0, OUT);
            on.project(y, input, weight, Optional.of(tensor(on, 1, OUT, bias)),
                    Optional.of(tensor(on, DType.F32, ROWS, OUT, 2, onto)), slots, SITE, low(input, slots));
            double[] expected = product(x, transposed(w, OUT, IN), ROWS, IN, OUT, 1);
            correct(expected, x, adapters, IN, OUT);
            for (int i = 0; i < expected.length; i++) expected[i] += bias[i % OUT] + onto[i];
            assertClose(expected, read(on, y), projected(adapters), 2 * Tolerance.ROUNDING, "y");
            on.project(y, input, weight, Optional.empty(), Optional.empty(), slots, SITE, Optional.empty());
            assertClose(product(x, transposed(w, OUT, IN), ROWS, IN, OUT, 1), read(on, y), tolerance()
                    .sum(IN),
                    Tolerance.ROUNDING, "without corrections");
        }
    }

    @Test void lowRankOfSeveralSitesInOnePass() {
        float[] x = random(2, 9 * IN);
        float[][] a = {random(5, IN * 4), random(6, IN * 2)};
        var table = new Factors(2, Map.of(0, Factors.factor(on, IN, 4, 3, a[0], random(7, 12)),
                1, Factors.factor(on, IN, 2, 3, a[1], random(8, 6))));
        var only = Factors.random(on, 50, 1, IN, 5, 3);
        var slots = on.slots(scope, List.of(new Slot(0, 3, 2, table, Optional.empty()),
                new Slot(4, 5, 1, only, Optional.empty())));
        var lows = List.of(on.scratch(scope, DType.F32, 9, 4), on.scratch(scope, DType.F32, 9, 5));
        on.lowRank(lows, tensor(on, 9, IN, x), slots, List.of(0, 1));
        for (int s = 0; s < 2; s++) {
            int rank = s == 0 ? 4 : 2;
            assertClose(product(rows(x, IN, 0, 3), a[s], 3, IN, rank, 2),
                    read(on, lows.get(s).rows(0, 3).columns(0, rank)), 2 * tolerance().sum(IN),
                    Tolerance.ROUNDING, "site " + s);
        }
        assertClose(product(rows(x, IN, 4, 5), read(on, only.at(1).orElseThrow().a()), 5, IN, 5, 1),
                read(on, lows.get(1).rows(4, 5)), tolerance().sum(IN), Tolerance.ROUNDING,
                "second slot");
    }

    @Test void gradientsOfAProjectionAreSummedSlotBySlot() {
        for (boolean add : new boolean[] {false, true}) {
            var adapters = adapters(IN, OUT, SLOTS);
            float[] w = random(1, OUT * IN);
            float[] x = random(2, ROWS * IN);
            float[] dy = random(5, ROWS * OUT);
            float[] before = random(6, ROWS * IN);
            var weight = weight(w);
            var input = tensor(on, DType.F32, ROWS, IN, 1, x);
            var slots = slots(adapters);
            var dx = tensor(on, DType.F32, ROWS, IN, 2, before);
            var gradient = tensor(on, DType.F32, ROWS, OUT, 1, dy);
            on.projectBack(Optional.of(dx), add, gradient, input, weight, slots, SITE, low(input, slots));
            double[] expected = product(dy, w, ROWS, OUT, IN, 1);
            for (int i = 0; add && i < expected.length; i++) expected[i] += before[i];
            for (var a : adapters) {
                float[] dyHere = rows(dy, OUT, a.row, a.count);
                float[] xHere = rows(x, IN, a.row, a.count);
                float[] dlow = VerbFixture.floats(product(dyHere, transposed(a.b, a.rank, OUT), a.count, OUT,
                        a.rank, a.scale));
                double[] back = product(dlow, transposed(a.a, IN, a.rank), a.count, a.rank, IN, 1);
                for (int i = 0; i < back.length; i++) expected[a.row * IN + i] += back[i];
                if (a.rank == 0) continue;
                assertGradients(a, xHere, dyHere, dlow);
            }
            double allowed = tolerance().sum(OUT + 1) + adapters.stream()
                    .mapToDouble(a -> 2 * through(OUT, a.rank))
                    .max().orElse(0);
            assertClose(expected, read(on, dx), allowed, 2 * Tolerance.ROUNDING, "dx");
        }
    }

    private void assertGradients(Adapter a, float[] x, float[] dy, float[] dlow) {
        float[] low = VerbFixture.floats(product(x, a.a, a.count, IN, a.rank, a.scale));
        double[] db = product(transposed(low, a.count, a.rank), dy, a.rank, a.count, OUT, 1);
        double[] da = product(transposed(x, a.count, IN), dlow, IN, a.count, a.rank, 1);
        float[] beforeA = random(30, IN * a.rank);
        float[] beforeB = random(31, a.rank * OUT);
        for (int i = 0; i < da.length; i++) da[i] += beforeA[i];
        for (int i = 0; i < db.length; i++) db[i] += beforeB[i];
        var gradient = a.gradient.at(SITE).orElseThrow();
        assertClose(db, read(on, gradient.b()), 2 * through(IN, a.count), Tolerance.ROUNDING,
                "dB of rank " + a.rank);
        assertClose(da, read(on, gradient.a()), 2 * through(OUT, a.count), Tolerance.ROUNDING,
                "dA of rank " + a.rank);
    }

    @Test void gradientsOfAdaptersAloneNeedNoDx() {
        var adapters = adapters(IN, OUT, new int[][] {{2, 5, 3}});
        var a = adapters.getFirst();
        float[] x = random(2, 9 * IN);
        float[] dy = random(5, 9 * OUT);
        var weight = weight(random(1, OUT * IN));
        var input = tensor(on, 9, IN, x);
        var slots = slots(adapters);
        on.projectBack(Optional.empty(), false, tensor(on, 9, OUT, dy), input, weight, slots, SITE,
                low(input, slots));
        float[] dyHere = rows(dy, OUT, 2, 5);
        assertGradients(a, rows(x, IN, 2, 5), dyHere, VerbFixture.floats(product(dyHere,
                transposed(a.b, 3, OUT), 5, OUT, 3, a.scale)));
    }

    /// A slot's rows and gradients have the same bits alone and beside slots of larger ranks.
    @Test void aSlotHasTheSameBitsBesideAnyOtherSlots() {
        float[] w = random(1, OUT * IN);
        float[] x = random(2, ROWS * IN);
        float[] dy = random(5, ROWS * OUT);
        var weight = weight(w);
        float[][] together = pass(weight, x, dy, ROWS, adapters(IN, OUT, SLOTS), 0);
        var alone = adapters(IN, OUT, SLOTS).getFirst();
        var moved = new Adapter(0, alone.count, alone.rank, alone.scale, alone.a, alone.b, alone.table,
                alone.gradient);
        float[][] got = pass(weight, rows(x, IN, 1, 40), rows(dy, OUT, 1, 40), 40, List.of(moved), 0);
        assertArrayEquals(rows(together[0], OUT, 1, 40), got[0], 0f);
        assertArrayEquals(rows(together[1], IN, 1, 40), got[1], 0f);
        assertArrayEquals(together[2], got[2], 0f);
        assertArrayEquals(together[3], got[3], 0f);
    }

    /// y, dx, and dA and dB of the first adapter.
    private float[][] pass(Weight weight, float[] x, float[] dy, int rows, List<Adapter> adapters, int gap) {
        var input = tensor(on, DType.F32, rows, IN, gap, x);
        var slots = slots(adapters);
        var y = on.tensor(DType.F32, rows, OUT);
        var dx = on.tensor(DType.F32, rows, IN);
        var low = low(input, slots);
        on.project(y, input, weight, Optional.empty(), Optional.empty(), slots, SITE, low);
        on.projectBack(Optional.of(dx), false, tensor(on, rows, OUT, dy), input, weight, slots, SITE, low);
        var gradient = adapters.getFirst().gradient.at(SITE).orElseThrow();
        return new float[][] {read(on, y), read(on, dx), read(on, gradient.a()), read(on, gradient.b())};
    }

    @Test void splitSlotsGiveTheRowsOfTheWhole() {
        var adapters = adapters(IN, OUT, SLOTS);
        float[] x = random(2, ROWS * IN);
        var weight = weight(random(1, OUT * IN));
        var input = tensor(on, ROWS, IN, x);
        var slots = slots(adapters);
        var whole = on.tensor(DType.F32, ROWS, OUT);
        on.project(whole, input, weight, Optional.empty(), Optional.empty(), slots, SITE, low(input, slots));
        for (int[] part : new int[][] {{0, 41}, {30, 20}, {41, 40}, {60, 30}}) {
            var y = on.tensor(DType.F32, part[1], OUT);
            var cut = slots.rows(part[0], part[1]);
            var own = input.rows(part[0], part[1]);
            on.project(y, own, weight, Optional.empty(), Optional.empty(), cut, SITE, low(own, cut));
            assertArrayEquals(rows(read(on, whole), OUT, part[0], part[1]), read(on, y), 0f);
        }
    }
}
