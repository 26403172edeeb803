package bios.bench;

import bios.CommandFailed;
import bios.worker.device.MatmulBaseline;
import bios.worker.device.MatmulBaseline.Product;
import bios.worker.device.MatmulBaseline.Type;
import bios.worker.device.Devices;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/// The limits of this machine, measured in the same run as the figures that are compared with them.
final class Limits implements AutoCloseable {
    /// More rows than these make products no faster.
    private static final int MOST_ROWS = 1024;
    private static final int MOST_HEAD_ROWS = 256;

    private final MatmulBaseline baseline;
    private final Shape shape;
    private final boolean bf16;

    private Limits(MatmulBaseline baseline, Shape shape, boolean bf16) {
        this.baseline = baseline;
        this.shape = shape;
        this.bf16 = bf16;
    }

    /// For a model of this shape. With bf16 weights the faster type of products counts, with fp32 weights
    /// fp32.
    static Limits of(Shape shape, boolean bf16, int threads) {
        MatmulBaseline baseline = Devices.hardware().matmulBaseline(threads)
                .orElseThrow(() -> new CommandFailed("oneDNN cannot be loaded: no ceiling can be measured"));
        return new Limits(baseline, shape, bf16);
    }

    /// FLOP/s of a model's products by type of factors.
    record Rates(Map<Type, Double> all) {
        double best() {
            return all.values().stream().max(Double::compare).orElseThrow();
        }
    }

    /// The rate of a training step's products with frozen weights, forward and backward.
    Rates training(int tokens) {
        List<Weighted> products = new ArrayList<>();
        for (Linear linear : shape.linears())
            products.addAll(both(linear, tokens, MOST_ROWS, shape.layers()));
        products.addAll(both(shape.head(), tokens, MOST_HEAD_ROWS, 1));
        return rates(products);
    }

    /// The rate of a forward's products with the frozen weights of layers.
    Rates forward(int tokens) {
        List<Weighted> products = new ArrayList<>();
        for (Linear linear : shape.linears())
            products.add(both(linear, tokens, MOST_ROWS, shape.layers()).getFirst());
        return rates(products);
    }

    /// A product, and its number of occurrences divided by its rows.
    private record Weighted(Product product, double times) {}

    private static List<Weighted> both(Linear linear, int tokens, int most, int times) {
        int rows = Math.clamp(tokens, 1, most);
        double each = (double) times / rows;
        return List.of(new Weighted(new Product(rows, linear.in(), linear.out()), each),
                new Weighted(new Product(rows, linear.out(), linear.in()), each));
    }

    private Rates rates(List<Weighted> products) {
        Map<Type, Double> all = new TreeMap<>();
        double operations = products.stream()
                .mapToDouble(w -> w.times * w.product.floatingPointOperations()).sum();
        for (Type type : bf16 ? baseline.types() : List.of(Type.FP32)) {
            double seconds = products.stream()
                    .mapToDouble(w -> w.times * baseline.medianSeconds(w.product, type)).sum();
            all.put(type, operations / seconds);
        }
        return new Rates(all);
    }

    /// Bytes per second of reading memory.
    static double readRate(int threads) {
        return Devices.hardware().readBytesPerSecond(threads);
    }

    @Override public void close() {
        baseline.close();
    }
}
