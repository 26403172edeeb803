package bios.worker.device.cuda;

import bios.worker.device.CudaSettings;
import bios.worker.device.CudaSettings.Products;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.FactorTable;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.Slot;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import bios.worker.kernel.HalfFloats;
import java.io.File;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;

/// The process in which a card executes [OptionalKernels] for the first time: a kernel that stops, or
/// accesses what it must not, ends this process and no worker. It prints a line for each of them.
///
/// Arguments: a card's number, the folder of compiled kernels, the folders of libraries, joined by the
/// system's separator, and the kernels to try.
public final class KernelTrial {
    /// The line that is printed when the card has computed without the kernels.
    static final String STARTED = "kernel-trial started";
    /// What the lines of kernels begin with, and end with: whether bits are those without the kernels.
    static final String LINE = "kernel-trial ", SAME = " same", OTHER = " other";
    private static final int IN = 1280, RANK = 24, LEAST_RANK = 4;
    private static final int[] OUTS = {216, 88, 24};
    private static final int[] ROWS = {61, 19, 5};
    /// Rows of an adapter.
    private static final int ADAPTED = 8;
    private static final int TIMES = 2;
    private static final long MEMORY_BYTES = 256L << 20;

    private KernelTrial() {}

    /// Tries the kernels one after the other.
    public static void main(String[] arguments) {
        var libraries = Arrays.stream(arguments[2].split(File.pathSeparator))
                .filter(folder -> !folder.isEmpty()).toList();
        Products products = CudaSettings.DEFAULT.products().withTriedBytes(Long.MAX_VALUE);
        for (var kernels : OptionalKernels.values()) products = kernels.off(products);
        var settings = new CudaSettings(libraries, Optional.of(Path.of(arguments[1])), MEMORY_BYTES,
                false, true, false, products);
        List<float[]> expected = compute(arguments[0], settings);
        System.out.println(STARTED);
        for (String name : List.of(arguments).subList(3, arguments.length)) {
            var kernels = OptionalKernels.valueOf(name);
            var with = settings.withProducts(kernels.on(settings.products()));
            boolean same = same(expected, compute(arguments[0], with));
            System.out.println(LINE + kernels + (same ? SAME : OTHER));
            if (same) settings = with;
        }
    }

    private static boolean same(List<float[]> a, List<float[]> b) {
        for (int i = 0; i < a.size(); i++) if (!Arrays.equals(a.get(i), b.get(i))) return false;
        return true;
    }

    /// Three projections of rows with adapters, several times.
    private static List<float[]> compute(String card, CudaSettings settings) {
        var results = new ArrayList<float[]>();
        try (Device on = CudaBackend.open("cuda:" + card, DeviceSettings.ofThreads(1).withCuda(settings));
                var arena = Arena.ofConfined()) {
            var weights = new ArrayList<Weight>();
            for (int out : OUTS) weights.add(on.weight(matrix(arena, out)));
            var factors = new ArrayList<FactorTable>();
            for (int i = 0; i * ADAPTED < ROWS[0]; i++)
                factors.add(factors(on, i % 2 == 0 ? RANK : LEAST_RANK));
            for (int time = 0; time < TIMES; time++)
                for (int rows : ROWS) results.addAll(project(on, rows, weights, factors));
        }
        return results;
    }

    private static List<float[]> project(Device on, int rows, List<Weight> weights,
            List<FactorTable> factors) {
        try (var scope = on.scope()) {
            var slots = new ArrayList<Slot>();
            for (int row = 0; row < rows; row += ADAPTED)
                slots.add(new Slot(row, Math.min(ADAPTED, rows - row), 0.5f, factors.get(row / ADAPTED),
                        Optional.empty()));
            var table = on.slots(scope, slots);
            var x = on.scratch(scope, DType.BF16, rows, IN);
            on.write(x, random(rows, rows * IN), 0);
            var lows = new ArrayList<Tensor>();
            var sites = new ArrayList<Integer>();
            for (int site = 0; site < OUTS.length; site++) {
                lows.add(on.scratch(scope, DType.BF16, rows, table.rank(site)));
                sites.add(site);
            }
            on.lowRank(lows, x, table, sites);
            var results = new ArrayList<Tensor>();
            for (int site : sites) {
                results.add(on.scratch(scope, DType.BF16, rows, OUTS[site]));
                on.project(results.getLast(), x, weights.get(site), Optional.empty(), Optional.empty(), table,
                        site, Optional.of(lows.get(site)));
            }
            // the next product, alone: the others may have asked for its weight
            results.add(on.scratch(scope, DType.BF16, rows, OUTS[0]));
            on.copy(results.getLast(), results.getFirst());
            var alone = on.scratch(scope, DType.F32, rows, OUTS[0]);
            on.project(alone, x, weights.getFirst(), Optional.empty(), Optional.empty(), table, 0,
                    Optional.empty());
            results.add(alone);
            return results.stream().map(tensor -> read(on, tensor)).toList();
        }
    }

    private static float[] read(Device on, Tensor tensor) {
        float[] values = new float[Math.toIntExact(tensor.elements())];
        on.read(tensor, values, 0);
        return values;
    }

    private static FactorTable factors(Device on, int rank) {
        var all = new ArrayList<FactorTable.Factor>();
        for (int out : OUTS) {
            var a = on.tensor(DType.F32, IN, rank);
            var b = on.tensor(DType.F32, rank, out);
            on.write(a, random(out + rank, IN * rank), 0);
            on.write(b, random(out, rank * out), 0);
            all.add(new FactorTable.Factor(a, b));
        }
        return new FactorTable() {
            @Override public int sites() {
                return all.size();
            }

            @Override public Optional<Factor> at(int site) {
                return Optional.of(all.get(site));
            }
        };
    }

    private static FrozenMatrix matrix(Arena arena, int out) {
        float[] values = random(out, out * IN);
        var memory = arena.allocate(2L * values.length, 64);
        for (int i = 0; i < values.length; i++)
            memory.setAtIndex(ValueLayout.JAVA_SHORT, i, HalfFloats.toBf16(values[i]));
        return new FrozenMatrix(memory, FrozenMatrix.WeightType.BF16, out, IN);
    }

    /// Numbers in [-1, 1) that bf16 has.
    private static float[] random(long seed, int n) {
        var random = new SplittableRandom(seed);
        float[] x = new float[n];
        for (int i = 0; i < n; i++) x[i] = HalfFloats.rounded((float) random.nextDouble(-1, 1));
        return x;
    }
}
