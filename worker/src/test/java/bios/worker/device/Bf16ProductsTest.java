package bios.worker.device;

import static bios.worker.device.Tolerance.assertClose;
import static bios.worker.device.VerbFixture.product;
import static bios.worker.device.VerbFixture.random;
import static bios.worker.device.VerbFixture.read;
import static bios.worker.device.VerbFixture.rounded;
import static bios.worker.device.VerbFixture.rows;
import static bios.worker.device.VerbFixture.tensor;
import static bios.worker.device.VerbFixture.transposed;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.worker.device.FactorTable.Factor;
import bios.worker.device.VerbFixture.Factors;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/// Projections with a bf16 weight of the kind of shape that tensor cores multiply, and several adapters, in
/// the element types of a model's passes: against sums in double precision, and with the same bits in any
/// company.
final class Bf16ProductsTest extends Conformance {
    /// A shape that the emulated library adds in one chain, so that the kernels for few rows are used.
    private static final int IN = 160, OUT = 184, ROWS = 152;
    /// Rows of each slot, and its rank.
    private static final int[][] SLOTS = {{1, 40, 4}, {41, 1, 20}, {52, 7, 1}, {80, 70, 16}};
    private static final int RANK = 24;

    private final Device on = open(2);
    private final Arena arena = Arena.ofShared();
    private final Device.Scope scope = on.scope();
    private final float[] w = rounded(random(1, OUT * IN));
    private final Weight weight = on.weight(VerbFixture.frozen(arena, FrozenMatrix.WeightType.BF16, OUT, IN,
            w));

    @AfterEach void close() {
        scope.close();
        on.close();
        arena.close();
    }

    private record Adapter(int row, int count, int rank, float[] a, float[] b, Factor gradient, Slot slot) {
        double[] low(float[] x) {
            return product(rows(x, IN, row, count), a, count, IN, rank, slot.scale());
        }
    }

    private List<Adapter> adapters(int[][] slots, int first) {
        var all = new ArrayList<Adapter>();
        for (int[] s : slots) {
            float[] a = random(10 + s[0], IN * s[2]);
            float[] b = random(20 + s[0], s[2] * OUT);
            var gradient = new Factor(on.tensor(DType.F32, IN, s[2]), on.tensor(DType.F32, s[2], OUT));
            var slot = new Slot(s[0] - first, s[1], 0.5f + s[0] / 64f, new Factors(1, Map.of(0,
                    Factors.factor(on, IN, s[2], OUT, a, b))), Optional.of(new Factors(1, Map.of(0,
                            gradient))));
            all.add(new Adapter(s[0] - first, s[1], s[2], a, b, gradient, slot));
        }
        return all;
    }

    private Slots slots(List<Adapter> adapters) {
        return on.slots(scope, adapters.stream().map(Adapter::slot).toList());
    }

    private Tensor low(Tensor x, Slots slots) {
        return low(x, slots, x.dtype());
    }

    private Tensor low(Tensor x, Slots slots, DType dtype) {
        var low = on.tensor(dtype, x.rows(), RANK);
        on.lowRank(List.of(low), x, slots, List.of(0));
        return low;
    }

    private static double tolerated(DType dtype) {
        return dtype == DType.BF16 ? 2 * Tolerance.ROUNDED : 4 * Tolerance.ROUNDING;
    }

    @Test void lowRankProductsOfBf16RowsAreThoseOfTheirNumbers() {
        float[] x = rounded(random(2, ROWS * IN));
        var adapters = adapters(SLOTS, 0);
        for (var dtype : new DType[] {DType.BF16, DType.F32}) {
            var low = on.tensor(dtype, ROWS, RANK);
            on.lowRank(List.of(low), tensor(on, DType.BF16, ROWS, IN, 8, x), slots(adapters), List.of(0));
            for (var a : adapters) assertClose(a.low(x), read(on, low.rows(a.row, a.count).columns(0,
                    a.rank)), 2 * tolerance().sum(IN), tolerated(dtype), "low of rank " + a.rank + " in "
                            + dtype);
        }
    }

    @Test void projectionsOfBf16Rows() {
        float[] x = rounded(random(2, ROWS * IN));
        float[] onto = rounded(random(4, ROWS * OUT));
        float[] bias = random(3, OUT);
        var adapters = adapters(SLOTS, 0);
        var slots = slots(adapters);
        var input = tensor(on, DType.BF16, ROWS, IN, 8, x);
        var low = low(input, slots);
        for (var dtype : new DType[] {DType.BF16, DType.F32})
            for (boolean all : new boolean[] {true, false}) {
                var y = on.tensor(dtype, ROWS, OUT);
                on.project(y, input, weight, all ? Optional.of(tensor(on, 1, OUT, bias)) : Optional.empty(),
                        all ? Optional.of(tensor(on, dtype, ROWS, OUT, 8, onto)) : Optional.empty(), slots, 0,
                        all ? Optional.of(low) : Optional.empty());
                double[] expected = new double[ROWS * OUT];
                if (all) for (int i = 0; i < expected.length; i++) expected[i] = bias[i % OUT] + onto[i];
                if (all) for (var a : adapters) correct(expected, OUT, a, read(on, low.rows(a.row, a.count)
                        .columns(0, a.rank)), a.b);
                double again = TestDevices.narrow() ? roundedAgain(expected, dtype) : 0;
                double[] products = product(x, transposed(w, OUT, IN), ROWS, IN, OUT, 1);
                for (int i = 0; i < expected.length; i++) expected[i] += products[i];
                assertClose(expected, read(on, y), 20 * tolerance().sum(IN) + again, tolerated(dtype), "y "
                        + dtype);
            }
    }

    /// The error if what a product is added to is rounded as well.
    private static double roundedAgain(double[] addedTo, DType dtype) {
        double largest = Arrays.stream(addedTo).map(Math::abs).max().orElseThrow();
        return dtype == DType.BF16 ? tolerated(dtype) * largest : 0;
    }

    /// y += low·factor on the rows of an adapter.
    private static void correct(double[] y, int columns, Adapter a, float[] low, float[] factor) {
        double[] more = product(low, factor, a.count, a.rank, columns, 1);
        for (int i = 0; i < more.length; i++) y[a.row * columns + i] += more[i];
    }

    @Test void gradientsOfBf16Rows() {
        float[] x = rounded(random(2, ROWS * IN));
        float[] dy = rounded(random(5, ROWS * OUT));
        float[] before = rounded(random(6, ROWS * IN));
        for (var dtype : new DType[] {DType.BF16, DType.F32})
            for (boolean add : new boolean[] {false, true}) {
                var adapters = adapters(SLOTS, 0);
                var slots = slots(adapters);
                var input = tensor(on, DType.BF16, ROWS, IN, 8, x);
                var low = low(input, slots);
                var dx = tensor(on, dtype, ROWS, IN, 8, before);
                on.projectBack(Optional.of(dx), add, tensor(on, DType.BF16, ROWS, OUT, 8, dy), input, weight,
                        slots, 0, Optional.of(low));
                double[] expected = new double[ROWS * IN];
                for (int i = 0; add && i < expected.length; i++) expected[i] = before[i];
                for (var a : adapters) {
                    float[] dlow = assertGradients(a, x, dy, low);
                    correct(expected, IN, a, dlow, transposed(a.a, IN, a.rank));
                }
                double again = roundedAgain(expected, dtype);
                double[] products = product(dy, w, ROWS, OUT, IN, 1);
                for (int i = 0; i < expected.length; i++) expected[i] += products[i];
                assertClose(expected, read(on, dx), 20 * tolerance().sum(OUT + RANK) + again,
                        tolerated(dtype), "dx " + dtype);
            }
    }

    /// Compares the gradients of an adapter. Returns its rows of dlow.
    private float[] assertGradients(Adapter a, float[] x, float[] dy, Tensor low) {
        float[] dyHere = rows(dy, OUT, a.row, a.count);
        float[] dlow = VerbFixture.floats(product(dyHere, transposed(a.b, a.rank, OUT), a.count, OUT, a.rank,
                a.slot.scale()));
        float[] lowHere = read(on, low.rows(a.row, a.count).columns(0, a.rank));
        double allowed = 20 * tolerance().sum(OUT + a.count);
        assertClose(product(transposed(rows(x, IN, a.row, a.count), a.count, IN), dlow, IN, a.count, a.rank,
                1), read(on, a.gradient.a()), allowed, 4 * Tolerance.ROUNDING, "dA of rank " + a.rank);
        assertClose(product(transposed(lowHere, a.count, a.rank), dyHere, a.rank, a.count, OUT, 1),
                read(on, a.gradient.b()), allowed, 4 * Tolerance.ROUNDING, "dB of rank " + a.rank);
        return dlow;
    }

    /// Sums over many rows, which several blocks of a card share, are those of the numbers, and have the same
    /// bits in any company.
    @Test void gradientsOfALongSlot() {
        int count = 2060, all = count + 12;
        float[] x = rounded(random(2, all * IN));
        float[] dy = rounded(random(5, all * OUT));
        var adapters = adapters(new int[][] {{2, count, 4}, {2 + count, 9, 8}}, 0);
        float[][] together = pass(x, dy, all, adapters);
        var low = low(tensor(on, DType.BF16, all, IN, 0, x), slots(adapters));
        for (var a : adapters) assertGradients(a, x, dy, low);
        float[][] alone = pass(rows(x, IN, 2, count), rows(dy, OUT, 2, count), count,
                adapters(new int[][] {{2, count, 4}}, 2));
        assertArrayEquals(together[2], alone[2], 0f);
        assertArrayEquals(together[3], alone[3], 0f);
    }

    /// fp32 rows are multiplied as [Activations#operand] says; weights this small at least split in two.
    @Test void projectionsOfFp32Rows() {
        float[] x = random(2, ROWS * IN);
        float[] dy = random(3, ROWS * OUT);
        var none = on.slots(scope, List.of());
        var y = on.tensor(DType.F32, ROWS, OUT);
        on.project(y, tensor(on, DType.F32, ROWS, IN, 1, x), weight, Optional.empty(), Optional.empty(), none,
                0, Optional.empty());
        assertClose(product(x, transposed(w, OUT, IN), ROWS, IN, OUT, 1), read(on, y),
                IN * Tolerance.SPLIT + tolerance().sum(IN), Tolerance.ROUNDING, "y");
        var dx = tensor(on, DType.F32, ROWS, IN, 3, random(4, ROWS * IN));
        on.projectBack(Optional.of(dx), false, tensor(on, DType.F32, ROWS, OUT, 3, dy), y, weight, none, 0,
                Optional.empty());
        assertClose(product(dy, w, ROWS, OUT, IN, 1), read(on, dx), OUT * Tolerance.SPLIT
                + tolerance().sum(OUT), Tolerance.ROUNDING, "dx");
    }

    /// y, dx and the gradients of a slot alone are those beside other slots and rows.
    @Test void aSlotHasTheSameBitsInAnyCompany() {
        float[] x = rounded(random(2, ROWS * IN));
        float[] dy = rounded(random(5, ROWS * OUT));
        float[][] together = pass(x, dy, ROWS, adapters(SLOTS, 0));
        float[][] alone = pass(rows(x, IN, 1, 40), rows(dy, OUT, 1, 40), 40,
                adapters(new int[][] {SLOTS[0]}, 1));
        assertArrayEquals(rows(together[0], OUT, 1, 40), alone[0], 0f);
        assertArrayEquals(rows(together[1], IN, 1, 40), alone[1], 0f);
        assertArrayEquals(together[2], alone[2], 0f);
        assertArrayEquals(together[3], alone[3], 0f);
        // a row without an adapter, alone
        float[][] bare = pass(rows(x, IN, 50, 1), rows(dy, OUT, 50, 1), 1, List.of());
        assertArrayEquals(rows(together[0], OUT, 50, 1), bare[0], 0f);
        assertArrayEquals(rows(together[1], IN, 50, 1), bare[1], 0f);
    }

    /// Rows that a sampler decodes, of several adapters, have the bits that they have in a long pass; so do
    /// the low-rank products, whose number of terms is not the same for all of a block's warps.
    @Test void fewRowsHaveTheBitsOfMany() {
        float[] x = rounded(random(2, ROWS * IN));
        float[] onto = random(4, ROWS * OUT);
        int[][] ranks = {{0, 3, 4}, {3, 1, 20}, {5, 20, 8}, {25, 65, 8}};
        for (int n : new int[] {1, 4, 7, 14, 30, 64})
            for (var dtype : new DType[] {DType.BF16, DType.F32}) {
                var few = new ArrayList<int[]>();
                for (int[] s : ranks)
                    if (s[0] < n) few.add(new int[] {s[0], Math.min(s[1], n - s[0]), s[2]});
                assertArrayEquals(rows(together(x, onto, ROWS, adapters(ranks, 0), dtype), OUT, 0, n),
                        together(x, onto, n, adapters(few.toArray(int[][]::new), 0), dtype), 0f,
                        n + " rows in " + dtype);
            }
    }

    /// Sums of several stages of a kernel for few rows, the last of which is not full, and features of
    /// several of its blocks; two projections are one launch.
    @Test void fewRowsOfManyTerms() {
        int in = 1368, out = 232, most = 64;
        float[] many = rounded(random(7, out * in));
        float[] x = rounded(random(8, most * in));
        var wide = on.weight(VerbFixture.frozen(arena, FrozenMatrix.WeightType.BF16, out, in, many));
        var none = on.slots(scope, List.of());
        double[] expected = product(x, transposed(many, out, in), most, in, out, 1);
        for (int n : new int[] {1, 8, 15, 20, 40, most}) {
            var input = tensor(on, DType.BF16, n, in, 0, rows(x, in, 0, n));
            var y = on.tensor(DType.F32, n, out);
            var again = on.tensor(DType.F32, n, out);
            for (var to : List.of(y, again))
                on.project(to, input, wide, Optional.empty(), Optional.empty(), none, 0, Optional.empty());
            assertClose(Arrays.copyOf(expected, n * out), read(on, y), 20 * tolerance().sum(in),
                    tolerated(DType.F32), n + " rows");
            assertArrayEquals(read(on, y), read(on, again), 0f, n + " rows");
        }
    }

    /// Low-rank products of few rows have the bits of many, alone and beside a projection of the same rows:
    /// of more slots than a warp has lanes, and of sums whose terms the warps share unevenly.
    @Test void lowRankProductsOfFewRowsHaveTheBitsOfMany() {
        int in = 1376, out = 104, slots = 40, few = 61, many = 90;
        float[] x = rounded(random(9, many * in));
        var wide = on.weight(VerbFixture.frozen(arena, FrozenMatrix.WeightType.BF16, out, in,
                rounded(random(7, out * in))));
        var all = new ArrayList<Slot>();
        for (int i = 0; i < slots; i++) {
            int rank = i == slots - 1 ? RANK : 4;
            all.add(new Slot(i, i == slots - 1 ? few - i : 1, 1 + i / 8f, new Factors(1, Map.of(0,
                    Factors.factor(on, in, rank, 8, random(100 + i, in * rank), random(1, rank * 8)))),
                    Optional.empty()));
        }
        var lows = new ArrayList<float[]>();
        for (boolean beside : new boolean[] {false, true})
            for (int n : new int[] {few, many}) {
                var low = tensor(on, DType.F32, n, RANK, 0, new float[n * RANK]);
                var input = tensor(on, DType.BF16, n, in, 0, rows(x, in, 0, n));
                var adapters = on.slots(scope, all);
                var y = on.tensor(DType.F32, n, out);
                on.lowRank(List.of(low), input, adapters, List.of(0));
                if (beside) on.project(y, input, wide, Optional.empty(), Optional.empty(), adapters, 0,
                        Optional.empty());
                lows.add(read(on, low.rows(0, few)));
            }
        for (var low : lows)
            for (int i = 0; i < few * RANK; i++) {
                int rank = i / RANK < slots - 1 ? 4 : RANK;
                if (i % RANK < rank) assertEquals(lows.getFirst()[i], low[i], 0f, "element " + i);
            }
    }

    /// Three projections of the same few rows have the bits that they have in a long pass, with adapters that
    /// fill a block's memory several times: as many as rows or few, of ranks of many tiles and of no whole
    /// one, and of factors whose rows do not begin at whole pieces. Shapes that the emulated library adds in
    /// one chain.
    @Test void adaptersOfFewRowsHaveTheBitsOfMany() {
        adaptersOfFewRowsHaveTheBitsOfMany(1376, 232, 104, 42);
    }

    /// The same of whole stages of the kernels whose blocks share copies of rows.
    @Test void adaptersOfRowsThatBlocksShareHaveTheBitsOfMany() {
        adaptersOfFewRowsHaveTheBitsOfMany(1280, 216, 88, 26);
        adaptersOfFewRowsHaveTheBitsOfMany(1408, 248, 120, 58);
    }

    private void adaptersOfFewRowsHaveTheBitsOfMany(int in, int... outs) {
        int few = 61, many = 90;
        float[] x = rounded(random(9, many * in));
        var weights = new ArrayList<Weight>();
        for (int i = 0; i < outs.length; i++)
            weights.add(on.weight(VerbFixture.frozen(arena, FrozenMatrix.WeightType.BF16, outs[i], in,
                    rounded(random(30 + i, outs[i] * in)))));
        // count of rows of each slot, and its rank; the last slot has the rest
        for (int[] kind : new int[][] {{1, 8}, {9, 16}, {25, 72}, {13, 5}}) {
            var all = new ArrayList<Slot>();
            for (int row = 0, i = 0; row < few; row += kind[0], i++) {
                int rank = i % 3 == 1 ? 4 : kind[1];
                var factors = new HashMap<Integer, Factor>();
                for (int site = 0; site < outs.length; site++)
                    if (i != 2 || site != 1) factors.put(site, Factors.factor(on, in, rank, outs[site],
                            random(100 + i + site, in * rank), random(200 + i + site, rank * outs[site])));
                all.add(new Slot(row, Math.min(kind[0], few - row), 1 + i / 8f, new Factors(outs.length,
                        factors), Optional.empty()));
            }
            for (int n : new int[] {1, 8, few}) {
                var own = all.stream().filter(slot -> slot.row() < n).map(slot -> new Slot(slot.row(),
                        Math.min(slot.count(), n - slot.row()), slot.scale(), slot.weights(),
                        slot.gradient())).toList();
                var alone = adapted(rows(x, in, 0, n), n, weights, on.slots(scope, own), kind[1]);
                var beside = adapted(x, many, weights, on.slots(scope, all), kind[1]);
                for (int i = 0; i < outs.length; i++)
                    assertArrayEquals(rows(beside.get(i), outs[i], 0, n), alone.get(i), 0f, n
                            + " rows of slots of " + kind[0] + ", rank " + kind[1] + ", site " + i);
            }
        }
    }

    /// Projections of n rows with adapters. Of more than 8 rows, a projection without an adapter comes first:
    /// its launch computes the low-rank products and does not use them.
    private List<float[]> adapted(float[] x, int n, List<Weight> weights, Slots slots, int rank) {
        var input = tensor(on, DType.BF16, n, x.length / n, 0, x);
        var lows = new ArrayList<Tensor>();
        var sites = new ArrayList<Integer>();
        for (int site = 0; site < weights.size(); site++) {
            lows.add(on.tensor(DType.BF16, n, rank));
            sites.add(site);
        }
        on.lowRank(lows, input, slots, sites);
        if (n > 8) {
            var bare = on.tensor(DType.F32, n, weights.getFirst().out());
            on.project(bare, input, weights.getFirst(), Optional.empty(), Optional.empty(), slots, 0,
                    Optional.empty());
            read(on, bare);
        }
        var results = new ArrayList<Tensor>();
        for (int site : sites) {
            results.add(on.tensor(DType.BF16, n, weights.get(site).out()));
            on.project(results.getLast(), input, weights.get(site), Optional.empty(), Optional.empty(), slots,
                    site, slots.rank(site) == 0 ? Optional.empty() : Optional.of(lows.get(site)));
        }
        return results.stream().map(y -> read(on, y)).toList();
    }

    /// Two projections of the first rows, the second onto the residual.
    private float[] together(float[] x, float[] onto, int n, List<Adapter> adapters, DType dtype) {
        var input = tensor(on, DType.BF16, n, IN, 0, rows(x, IN, 0, n));
        var slots = slots(adapters);
        var low = low(input, slots, dtype);
        var first = on.tensor(dtype, n, OUT);
        var second = on.tensor(DType.F32, n, OUT);
        on.project(first, input, weight, Optional.empty(), Optional.empty(), slots, 0, Optional.of(low));
        on.project(second, input, weight, Optional.empty(), Optional.of(tensor(on, DType.F32, n, OUT, 0,
                rows(onto, OUT, 0, n))), slots, 0, Optional.of(low));
        float[] all = read(on, first);
        float[] other = read(on, second);
        for (int i = 0; i < all.length; i++) all[i] += other[i];
        return all;
    }

    private float[][] pass(float[] x, float[] dy, int n, List<Adapter> adapters) {
        var input = tensor(on, DType.BF16, n, IN, 0, x);
        var slots = slots(adapters);
        var low = adapters.isEmpty() ? Optional.<Tensor>empty() : Optional.of(low(input, slots));
        var y = on.tensor(DType.BF16, n, OUT);
        var dx = on.tensor(DType.BF16, n, IN);
        on.project(y, input, weight, Optional.empty(), Optional.empty(), slots, 0, low);
        on.projectBack(Optional.of(dx), false, tensor(on, DType.BF16, n, OUT, 0, dy), input, weight, slots, 0,
                low);
        return adapters.isEmpty() ? new float[][] {read(on, y), read(on, dx)}
                : new float[][] {read(on, y), read(on, dx), read(on, adapters.getFirst().gradient.a()),
                    read(on, adapters.getFirst().gradient.b())};
    }
}
