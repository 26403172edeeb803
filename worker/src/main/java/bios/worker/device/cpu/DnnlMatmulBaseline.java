package bios.worker.device.cpu;

import bios.worker.device.MatmulBaseline;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// [MatmulBaseline] of oneDNN with all cores: the best of several ways to split each product into tasks.
/// Which type is faster depends on the machine: bf16 takes half the time of fp32 on some, twice the time on
/// others.
final class DnnlMatmulBaseline implements MatmulBaseline {
    /// How a product is split into tasks: rows and columns of a block.
    private record Cut(int rows, int columns) {}

    private static final int BLOCK_ROWS = 128;
    private static final int BLOCK_COLUMNS = 512;
    private static final int MIN_REPETITIONS = 3;
    private static final long MIN_TOTAL_NANOS = 120_000_000;

    private final Dnnl dnnl;
    private final Pool pool;
    private final DnnlKernels kernels;
    private final Memory memory = new Memory(Long.MAX_VALUE);
    private final NativeBuffer left = new NativeBuffer(memory);
    private final NativeBuffer right = new NativeBuffer(memory);
    private final NativeBuffer result = new NativeBuffer(memory);
    private final Map<Product, Map<Type, Double>> cachedSeconds = new HashMap<>();

    private DnnlMatmulBaseline(Dnnl dnnl, int threads) {
        this.dnnl = dnnl;
        pool = new Pool(threads);
        kernels = new DnnlKernels(dnnl, threads, memory);
    }

    /// For this many threads; empty if oneDNN does not load.
    static Optional<DnnlMatmulBaseline> of(int threads) {
        return Dnnl.loaded().map(dnnl -> new DnnlMatmulBaseline(dnnl, threads));
    }

    @Override public List<Type> types() {
        return dnnl.multipliesBf16() ? List.of(Type.values()) : List.of(Type.FP32);
    }

    @Override public double medianSeconds(Product product, Type type) {
        return cachedSeconds.computeIfAbsent(product, _ -> new HashMap<>())
                .computeIfAbsent(type, _ -> measure(product, type));
    }

    private static int bytes(Type type) {
        return switch (type) {
            case BF16 -> 2;
            case FP32 -> 4;
        };
    }

    private static int dnnl(Type type) {
        return switch (type) {
            case BF16 -> Dnnl.BF16;
            case FP32 -> Dnnl.F32;
        };
    }

    private double measure(Product product, Type type) {
        fill(left.atLeast((long) bytes(type) * product.m() * product.k()), type);
        result.atLeast(4L * product.m() * product.n());
        int threads = pool.size();
        double best = Double.MAX_VALUE;
        for (Cut cut : List.of(new Cut(Math.ceilDiv(product.m(), threads), product.n()),
                new Cut(product.m(), Math.ceilDiv(product.n(), threads * 64) * 64),
                new Cut(BLOCK_ROWS, BLOCK_COLUMNS)))
            best = Math.min(best, median(tasks(product, type, cut)));
        return best;
    }

    /// One block: a kernel, and the start addresses of its factors and its result.
    private record Block(DnnlKernels.Kernel kernel, MemorySegment src, MemorySegment weights,
            MemorySegment dst) {}

    private List<Block> tasks(Product product, Type type, Cut cut) {
        List<MemorySegment> panels = new ArrayList<>();
        long bytes = 0;
        for (int at = 0; at < product.n(); at += cut.columns)
            bytes += panelBytes(product, type, Math.min(cut.columns, product.n() - at));
        MemorySegment packed = right.atLeast(bytes);
        fill(packed.asSlice(0, bytes), type);
        long offset = 0;
        for (int at = 0; at < product.n(); at += cut.columns) {
            long size = panelBytes(product, type, Math.min(cut.columns, product.n() - at));
            panels.add(packed.asSlice(offset, size));
            offset += size;
        }
        List<Block> blocks = new ArrayList<>();
        MemorySegment src = left.atLeast(1);
        MemorySegment dst = result.atLeast(1);
        for (int panel = 0; panel < panels.size(); panel++)
            for (int row = 0; row < product.m(); row += cut.rows) {
                int column = panel * cut.columns;
                blocks.add(new Block(kernels.product(dnnl(type), Math.min(cut.rows, product.m() - row),
                        product.k(), Math.min(cut.columns, product.n() - column), product.k(),
                        product.n(), false),
                        src.asSlice((long) bytes(type) * row * product.k()), panels.get(panel),
                        dst.asSlice(4 * ((long) row * product.n() + column))));
            }
        return blocks;
    }

    private long panelBytes(Product product, Type type, int columns) {
        return (kernels.form(dnnl(type), product.k(), columns).bytes() + 63) / 64 * 64;
    }

    private double median(List<Block> blocks) {
        Runnable once = () -> pool.run(blocks.size(), (task, thread) -> {
            Block b = blocks.get(task);
            b.kernel.run(thread, b.src, b.weights, b.dst);
        });
        once.run();
        List<Long> times = new ArrayList<>();
        long begin = System.nanoTime(); // edge: a measurement
        for (long last = begin; times.size() < MIN_REPETITIONS || last - begin < MIN_TOTAL_NANOS; ) {
            once.run();
            long now = System.nanoTime(); // edge: a measurement
            times.add(now - last);
            last = now;
        }
        return times.stream().sorted().toList().get(times.size() / 2) * 1e-9;
    }

    /// Ordinary numbers of both signs: the speed of products of zeros may differ.
    private static void fill(MemorySegment to, Type type) {
        float[] pattern = new float[1 << 10];
        for (int i = 0; i < pattern.length; i++) pattern[i] = (i * 37 % 101 - 50) / 64f;
        byte[] bytes = new byte[bytes(type) * pattern.length];
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

    /// Bytes per second read by the product of one row with fp32 weights that no cache contains.
    double readBytesPerSecond() {
        Product product = new Product(1, 2048, 1 << 17);
        return 4.0 * product.k() * product.n() / medianSeconds(product, Type.FP32);
    }

    @Override public void close() {
        kernels.close();
        pool.close();
        for (var buffer : List.of(left, right, result)) buffer.close();
    }
}
