package bios.bench;

import bios.worker.device.MatmulBaseline;
import bios.worker.device.MatmulBaseline.Product;
import bios.worker.device.Device;
import bios.worker.device.Devices;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/// Measures how fast the engine multiplies by frozen weights, compared with oneDNN alone on the same shapes.
public record ProductBench(Setup setup) {
    private static final int REPETITIONS = 15;

    /// GFLOP/s of x·Wᵀ with this many rows of x, for each matrix of the model's layers.
    public Report run(int rows) {
        List<Linear> linears = setup.shape().linears().stream().distinct().toList();
        Report report;
        try (Device device = setup.device()) {
            report = setup.report("gemm", device);
            report.line().put("rows", rows);
            for (Linear linear : linears)
                report.line().put("engine_" + name(linear), Report.round(engine(device, linear, rows)));
        }
        Devices.hardware().matmulBaseline(setup.threads()).ifPresent(baseline -> {
            try (baseline) {
                for (Linear linear : linears)
                    for (MatmulBaseline.Type type : baseline.types()) {
                        Product product = new Product(rows, linear.in(), linear.out());
                        report.line().put(
                                "onednn_" + type.name().toLowerCase(Locale.ROOT) + "_" + name(linear),
                                Report.round(product.floatingPointOperations()
                                        / baseline.medianSeconds(product, type) / 1e9));
                    }
            }
        });
        report.line().put("read_gb_s", Report.round(Limits.readRate(setup.threads()) / 1e9));
        return report;
    }

    private static String name(Linear linear) {
        return linear.in() + "to" + linear.out();
    }

    private double engine(Device device, Linear linear, int rows) {
        WeightType dtype = setup.bf16() ? WeightType.BF16 : WeightType.F32;
        try (Arena arena = Arena.ofShared(); Device.Scope scope = device.scope()) {
            Weight weight = device.weight(new FrozenMatrix(
                    arena.allocate(linear.weights() * dtype.bytes(), 64), dtype, linear.out(), linear.in()));
            Tensor x = device.scratch(scope, rows, linear.in());
            Tensor y = device.scratch(scope, rows, linear.out());
            Slots none = device.slots(scope, List.of());
            device.fill(x, 0.5f);
            List<Double> seconds = new ArrayList<>();
            for (int i = 0; i <= REPETITIONS; i++) {
                long begin = System.nanoTime();
                device.project(y, x, weight, Optional.empty(), Optional.empty(), none, 0, Optional.empty());
                device.readback(List.of(y.rows(0, 1))).floats(0);
                if (i > 0) seconds.add((System.nanoTime() - begin) * 1e-9);
            }
            return new Product(rows, linear.in(), linear.out()).floatingPointOperations()
                    / Percentiles.of(seconds).median()
                    / 1e9;
        }
    }
}
