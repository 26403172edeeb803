package bios.worker.device.cpu;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;

/// How fast this machine reads memory that is in no cache. It limits decoding, because each token reads all
/// weights once.
final class ReadRate {
    private static final long BYTES = 1L << 30;
    private static final int REPETITIONS = 9;
    /// Longs of one of the [#STREAMS] that a thread reads side by side.
    private static final int RUN = 1 << 12;
    private static final int STREAMS = 4;
    private static final long BLOCK = 8L * RUN * STREAMS;

    private ReadRate() {}

    /// Bytes per second with this many threads: the larger of the rates of a plain loop and oneDNN's product
    /// of one row with a large matrix, which reads as fast as compiled C.
    static double bytesPerSecond(int threads) {
        double plain = plainLoop(threads);
        return DnnlMatmulBaseline.of(threads).map(ceiling -> {
            try (ceiling) {
                return Math.max(plain, ceiling.readBytesPerSecond());
            }
        }).orElse(plain);
    }

    private static double plainLoop(int threads) {
        long bytes = Math.max(1, BYTES / threads / BLOCK) * BLOCK;
        try (var arena = Arena.ofShared(); var pool = new Pool(threads)) {
            MemorySegment[] parts = new MemorySegment[threads];
            pool.run(threads, (task, _) -> {
                parts[task] = arena.allocate(bytes, 64);
                parts[task].fill((byte) (task + 1));
            });
            long[] sums = new long[threads];
            double[] rates = new double[REPETITIONS];
            for (int i = 0; i < rates.length; i++) {
                long begin = System.nanoTime(); // edge: a measurement
                pool.run(threads, (task, _) -> sums[task] += sum(parts[task]));
                rates[i] = bytes * threads / ((System.nanoTime() - begin) * 1e-9); // edge: a measurement
            }
            Arrays.sort(rates);
            return Arrays.stream(sums).sum() == 0 ? 0 : rates[rates.length / 2];    // the sums are used
        }
    }

    private static long sum(MemorySegment memory) {
        long sum = 0;
        for (long at = 0; at < memory.byteSize(); at += BLOCK) sum += sumOfBlock(memory, at);
        return sum;
    }

    /// Four streams, two sums each: enough outstanding loads that bandwidth, not latency, limits the speed.
    private static long sumOfBlock(MemorySegment memory, long from) {
        long stride = 8L * RUN;
        long a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
        for (int i = 0; i < RUN; i += 2) {
            long at = from + 8L * i;
            a += memory.get(ValueLayout.JAVA_LONG, at);
            b += memory.get(ValueLayout.JAVA_LONG, at + 8);
            c += memory.get(ValueLayout.JAVA_LONG, at + stride);
            d += memory.get(ValueLayout.JAVA_LONG, at + stride + 8);
            e += memory.get(ValueLayout.JAVA_LONG, at + 2 * stride);
            f += memory.get(ValueLayout.JAVA_LONG, at + 2 * stride + 8);
            g += memory.get(ValueLayout.JAVA_LONG, at + 3 * stride);
            h += memory.get(ValueLayout.JAVA_LONG, at + 3 * stride + 8);
        }
        return a + b + c + d + e + f + g + h;
    }
}
