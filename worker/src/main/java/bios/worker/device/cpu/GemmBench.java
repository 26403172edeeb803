package bios.worker.device.cpu;

import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.DType;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/// How fast the products of the CPU are: the ceiling that other speeds on a machine are told against.
public final class GemmBench {
    private GemmBench() {}

    /// The speed of x·Wᵀ with x `[m, k]` and W `[n, k]`.
    public record Row(int m, int n, int k, boolean bf16, double gflops) {}

    /// Times [CpuDevice#multiply] for every `{n, k}`, the best of some repetitions, with all cores.
    public static List<Row> run(int m, int[][] nk, boolean bf16) {
        var rows = new ArrayList<Row>();
        try (var device = new CpuDevice(); var arena = Arena.ofShared()) {
            for (int[] shape : nk) {
                int n = shape[0];
                int k = shape[1];
                var dtype = bf16 ? DType.BF16 : DType.F32;
                var w = device.weight(new FrozenMatrix(arena.allocate((long) n * k * dtype.bytes(), 64),
                        dtype, n, k));
                var x = device.tensor(m, k);
                var y = device.tensor(m, n);
                device.fill(x, 0.5f);
                double flops = 2.0 * m * n * k;
                rows.add(new Row(m, n, k, bf16, flops / best(flops, () -> device.multiply(y, x, w)) / 1e9));
            }
        }
        return rows;
    }

    /// The shortest time of a call, in seconds.
    static double best(double flops, Runnable call) {
        long best = Long.MAX_VALUE;
        int repeat = (int) Math.clamp(2e10 / flops, 5, 2000);
        for (int i = 0; i < repeat; i++) {
            long from = System.nanoTime(); // edge: a bench
            call.run();
            best = Math.min(best, System.nanoTime() - from); // edge: a bench
        }
        return best * 1e-9;
    }
}
