package bios.worker.device.cpu;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The rate of products on this machine by oneDNN alone, with all cores, packed weights and nothing between:
/// what the speed of the engine is told against. Which type is faster differs: bf16 takes half the time of
/// fp32 on some machines, twice its time on others.
public final class Ceiling implements AutoCloseable {
    /// Element types of a product's factors; sums are fp32.
    public enum Type {
        BF16(Dnnl.BF16, 2), FP32(Dnnl.F32, 4);

        private final int dnnl;
        private final int bytes;

        Type(int dnnl, int bytes) {
            this.dnnl = dnnl;
            this.bytes = bytes;
        }
    }

    /// `[rows, depth]·[depth, width]`.
    public record Product(int rows, int depth, int width) {
        /// Multiplications and additions.
        public double flops() {
            return 2.0 * rows * depth * width;
        }
    }

    /// How a product is cut into tasks: blocks of so many rows and columns.
    private record Cut(int rows, int columns) {}

    private static final int BLOCK_ROWS = 128;
    private static final int BLOCK_COLUMNS = 512;
    private static final int FEWEST_REPETITIONS = 3;
    private static final long SHORTEST_NANOS = 120_000_000;

    private final Dnnl dnnl;
    private final Pool pool;
    private final DnnlKernels kernels;
    private final NativeBuffer left = new NativeBuffer();
    private final NativeBuffer right = new NativeBuffer();
    private final NativeBuffer result = new NativeBuffer();
    private final Map<Product, Map<Type, Double>> known = new HashMap<>();

    private Ceiling(Dnnl dnnl, int threads) {
        this.dnnl = dnnl;
        pool = new Pool(threads);
        kernels = new DnnlKernels(dnnl, threads);
    }

    /// For so many threads; empty where oneDNN does not run.
    public static Optional<Ceiling> of(int threads) {
        return Dnnl.instance().map(dnnl -> new Ceiling(dnnl, threads));
    }

    /// The types that this machine multiplies in hardware.
    public List<Type> types() {
        return dnnl.multipliesBf16() ? List.of(Type.values()) : List.of(Type.FP32);
    }

    /// Seconds of one product; the median of some repetitions, for the best of a few ways to cut it. Measured
    /// once.
    public double seconds(Product product, Type type) {
        return known.computeIfAbsent(product, _ -> new HashMap<>())
                .computeIfAbsent(type, _ -> measured(product, type));
    }

    private double measured(Product product, Type type) {
        fill(left.atLeast((long) type.bytes * product.rows * product.depth), type);
        result.atLeast(4L * product.rows * product.width);
        int threads = pool.size();
        double best = Double.MAX_VALUE;
        for (Cut cut : List.of(new Cut(Math.ceilDiv(product.rows, threads), product.width),
                new Cut(product.rows, Math.ceilDiv(product.width, threads * 64) * 64),
                new Cut(BLOCK_ROWS, BLOCK_COLUMNS)))
            best = Math.min(best, median(tasks(product, type, cut)));
        return best;
    }

    /// One block: a kernel with where its factors and result begin.
    private record Block(DnnlKernels.Kernel kernel, MemorySegment src, MemorySegment weights,
            MemorySegment dst) {}

    private List<Block> tasks(Product product, Type type, Cut cut) {
        List<MemorySegment> panels = new ArrayList<>();
        long bytes = 0;
        for (int at = 0; at < product.width; at += cut.columns)
            bytes += panelBytes(product, type, Math.min(cut.columns, product.width - at));
        MemorySegment packed = right.atLeast(bytes);
        fill(packed.asSlice(0, bytes), type);
        long offset = 0;
        for (int at = 0; at < product.width; at += cut.columns) {
            long size = panelBytes(product, type, Math.min(cut.columns, product.width - at));
            panels.add(packed.asSlice(offset, size));
            offset += size;
        }
        List<Block> blocks = new ArrayList<>();
        MemorySegment src = left.atLeast(1);
        MemorySegment dst = result.atLeast(1);
        for (int panel = 0; panel < panels.size(); panel++)
            for (int row = 0; row < product.rows; row += cut.rows) {
                int column = panel * cut.columns;
                blocks.add(new Block(kernels.product(type.dnnl, Math.min(cut.rows, product.rows - row),
                        product.depth, Math.min(cut.columns, product.width - column), product.depth,
                        product.width, false),
                        src.asSlice((long) type.bytes * row * product.depth), panels.get(panel),
                        dst.asSlice(4 * ((long) row * product.width + column))));
            }
        return blocks;
    }

    private long panelBytes(Product product, Type type, int columns) {
        return (kernels.form(type.dnnl, product.depth, columns).bytes() + 63) / 64 * 64;
    }

    private double median(List<Block> blocks) {
        Runnable once = () -> pool.run(blocks.size(), (task, member) -> {
            Block b = blocks.get(task);
            b.kernel.run(member, b.src, b.weights, b.dst);
        });
        once.run();
        List<Long> times = new ArrayList<>();
        long begin = System.nanoTime(); // edge: a measurement
        for (long last = begin; times.size() < FEWEST_REPETITIONS || last - begin < SHORTEST_NANOS; ) {
            once.run();
            long now = System.nanoTime(); // edge: a measurement
            times.add(now - last);
            last = now;
        }
        return times.stream().sorted().toList().get(times.size() / 2) * 1e-9;
    }

    /// Numbers of everyday size, of either sign: what a processor makes of zeros is no measure.
    private static void fill(MemorySegment to, Type type) {
        float[] pattern = new float[1 << 10];
        for (int i = 0; i < pattern.length; i++) pattern[i] = (i * 37 % 101 - 50) / 64f;
        byte[] bytes = new byte[type.bytes * pattern.length];
        MemorySegment some = MemorySegment.ofArray(bytes);
        for (int i = 0; i < pattern.length; i++)
            switch (type) {
                case BF16 -> some.set(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i,
                        (short) (Float.floatToRawIntBits(pattern[i]) >>> 16));
                case FP32 -> some.set(ValueLayout.JAVA_FLOAT_UNALIGNED, 4L * i, pattern[i]);
            }
        for (long at = 0; at < to.byteSize(); at += bytes.length) {
            int n = (int) Math.min(bytes.length, to.byteSize() - at);
            MemorySegment.copy(some, 0, to, at, n);
        }
    }

    /// Bytes per second at which one row is multiplied by fp32 weights that no cache holds.
    double readBytesPerSecond() {
        Product product = new Product(1, 2048, 1 << 17);
        return 4.0 * product.depth * product.width / seconds(product, Type.FP32);
    }

    @Override public void close() {
        kernels.close();
        pool.close();
        for (var buffer : List.of(left, right, result)) buffer.close();
    }
}
