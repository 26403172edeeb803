package bios.bench;

import bios.bench.GpuVerbs.Factors;
import bios.bench.GpuVerbs.Operand;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.Slot;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/// Compares bits of kernels of one device that have to agree: of the rows of a product, whatever their
/// number, of adapters of few rows, on which blocks work together, many times, and of heads that are prepared
/// for attention by one kernel and by single verbs.
///
/// @param rows of the largest product
/// @param columns of its result
record GpuAgreement(Device device, int rows, int columns) {
    private static final int IN = 64;
    private static final int[] COUNTS = {1, 9, 20, 64, 65, 200, 1800};
    /// Rows that are compared at the beginning of a product, and at its end.
    private static final int COMPARED = 64;
    /// Number of passes of few rows that are compared with a longer pass, which has MORE_ROWS more rows. Each
    /// of the adapters, whose ranks are RANKS, has ROWS_OF_SLOT rows.
    private static final int PASSES = 100, ROWS_OF_SLOT = 8, MORE_ROWS = 40;
    private static final int[] RANKS = {16, 8, 64, 16, 32, 16, 8, 16};

    /// A product of random operands.
    private record Product(Tensor x, Weight weight, Tensor bias, List<Factors> factors) {}

    /// What differs, in words.
    List<String> differences() {
        List<String> all = new ArrayList<>();
        for (DType type : GpuCheck.types()) {
            // weights of one shape and two types are not mistaken for each other
            for (WeightType weight : new WeightType[] {WeightType.BF16, WeightType.F32})
                products(type, weight, all);
            adapters(type, all);
            for (int headDim : new int[] {64, 128, 80})
                for (boolean norms : new boolean[] {false, true})
                    for (boolean paged : new boolean[] {false, true})
                        if (!GpuParity.same(prepared(type, headDim, norms, paged, false),
                                prepared(type, headDim, norms, paged, true)))
                            all.add("prepareHeads " + type + " " + headDim + (norms ? ", norms" : "")
                                    + (paged ? ", pages" : ""));
        }
        return all;
    }

    private List<float[]> prepared(DType type, int headDim, boolean norms, boolean paged, boolean singly) {
        try (Operand on = new Operand(device)) {
            return GpuVerbs.prepared(on, type, headDim, norms, paged, singly);
        }
    }

    private void products(DType type, WeightType weight, List<String> differences) {
        try (Operand on = new Operand(device)) {
            int[] ranks = {8, 16, 20, 5};
            List<Factors> factors = Arrays.stream(ranks).mapToObj(rank ->
                    Factors.random(on, IN, rank, columns)).toList();
            var product = new Product(on.random(DType.BF16, rows, IN),
                    device.weight(on.frozen(weight, columns, IN)), on.random(DType.F32, 1, columns),
                    factors);
            Tensor whole = project(on, product, type, rows);
            for (int count : COUNTS) {
                if (count >= rows) continue;
                Tensor some = project(on, product, type, count);
                if (!GpuParity.same(ends(on, whole, count), ends(on, some, count)))
                    differences.add("project " + type + " x " + weight + ", " + count + " rows");
            }
        }
    }

    private void adapters(DType type, List<String> differences) {
        int in = Math.max(IN, columns / 4 / IN * IN);
        int few = RANKS.length * ROWS_OF_SLOT;
        try (Operand on = new Operand(device)) {
            Weight weight = device.weight(on.frozen(WeightType.BF16, in, in));
            Tensor x = on.random(DType.BF16, few + MORE_ROWS, in);
            List<Slot> slots = new ArrayList<>();
            for (int i = 0; i < RANKS.length; i++) slots.add(new Slot(i * ROWS_OF_SLOT, ROWS_OF_SLOT, 0.5f,
                    Factors.random(on, in, RANKS[i], in), Optional.empty()));
            Slots all = device.slots(on.scope, slots);
            List<float[]> expected = adapted(on, x, weight, all, type, few);
            int different = 0;
            // one pass of the tiny shape that the emulated card has
            int passes = in > IN ? PASSES : 1;
            for (int i = 0; i < passes; i++)
                if (!GpuParity.same(expected, adapted(on, x.rows(0, few), weight, all, type, few)))
                    different++;
            if (different > 0) differences.add("adapters of few rows " + type + ": " + different + " of "
                    + passes + " passes");
        }
    }

    /// The first `compared` rows of a product with corrections.
    private List<float[]> adapted(Operand on, Tensor x, Weight weight, Slots slots, DType type,
            int compared) {
        try (Device.Scope scope = device.scope()) {
            int rank = slots.rank(GpuVerbs.SITE);
            Tensor low = device.scratch(scope, DType.BF16, x.rows(), rank);
            Tensor y = device.scratch(scope, type, x.rows(), weight.out());
            device.lowRank(List.of(low), x, slots, List.of(GpuVerbs.SITE));
            device.project(y, x, weight, Optional.empty(), Optional.empty(), slots, GpuVerbs.SITE,
                    Optional.of(low));
            return on.read(y.rows(0, compared));
        }
    }

    /// The first rows and the last rows of the first `count` rows of `y`.
    private static List<float[]> ends(Operand on, Tensor y, int count) {
        int compared = Math.min(COMPARED, count);
        return on.read(y.rows(0, compared), y.rows(count - compared, compared));
    }

    /// The product of the first `count` rows, with a bias and the corrections of up to four adapters. The
    /// rows of the adapters do not end at tiles.
    private Tensor project(Operand on, Product product, DType type, int count) {
        int[][] spans = {{0, 1}, {3, 17}, {40, rows * 3 / 7}, {rows * 3 / 7 + 3, rows - 5}};
        List<Slot> given = new ArrayList<>();
        for (int i = 0; i < spans.length; i++)
            if (spans[i][0] < count) given.add(new Slot(spans[i][0], Math.min(count, spans[i][1])
                    - spans[i][0], 0.5f, product.factors.get(i), Optional.empty()));
        Slots slots = device.slots(on.scope, given);
        Tensor x = product.x.rows(0, count);
        Tensor low = on.empty(DType.BF16, count, slots.rank(GpuVerbs.SITE));
        device.fill(low, 0);
        device.lowRank(List.of(low), x, slots, List.of(GpuVerbs.SITE));
        Tensor y = on.empty(type, count, columns);
        device.project(y, x, product.weight, Optional.of(product.bias), Optional.empty(), slots,
                GpuVerbs.SITE, Optional.of(low));
        return y;
    }
}
