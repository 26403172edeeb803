package bios.worker.kernel;

import java.lang.foreign.MemorySegment;

/// The exponential function of every softmax and sigmoid of the engine, so that their bits agree: exp(x) =
/// 2ⁿ·exp(r), n = round(x / ln 2), r in two parts after Cody and Waite, exp(r) by a polynomial of degree 6
/// with the least relative error of those that begin with 1 + r + r²/2; all by fused multiply-adds, which
/// round once. Within 1 unit in the last place for x in [-87, 88]; outside, x is clamped to that range (so
/// exp(-∞) is about 1e-38, not 0: leave masked elements out). NaN gives NaN.
public final class Exp {
    private static final float LOWEST = -87f;
    private static final float HIGHEST = 88f;
    private static final float PER_LN2 = 1.44269504f;
    private static final float LN2_HIGH = 0.6931472f;
    private static final float LN2_LOW = -1.9046542e-9f;
    /// Adding 1.5·2²³ rounds to an integer, which then lies in the low bits.
    private static final float ROUND = 12582912f;
    private static final float C6 = 1.3863781e-3f;
    private static final float C5 = 8.3674826e-3f;
    private static final float C4 = 4.1667238e-2f;
    private static final float C3 = 1.6666535e-1f;
    private static final float C2 = 0.5f;

    private Exp() {}

    /// exp(x).
    public static float exp(float x) {
        float z = Math.min(Math.max(x, LOWEST), HIGHEST);
        float n = Math.fma(z, PER_LN2, ROUND) - ROUND;
        float r = Math.fma(n, -LN2_LOW, Math.fma(n, -LN2_HIGH, z));
        float p = Math.fma(C6, r, C5);
        p = Math.fma(p, r, C4);
        p = Math.fma(p, r, C3);
        p = Math.fma(p, r, C2);
        p = Math.fma(p, r, 1f);
        p = Math.fma(p, r, 1f);
        return p * Float.intBitsToFloat(((int) n + 127) << 23);
    }

    /// y[i] ← exp(factor·x[i] - shift) for i < n, the bits of [#exp(float)]; y may be x. Three loops, because
    /// C2 does not vectorize casts between int and float.
    public static void exp(float[] y, float[] x, int n, float factor, float shift) {
        var buffers = BUFFERS.get();
        for (int from = 0; from < n; from += Buffers.SIZE) {
            int count = Math.min(Buffers.SIZE, n - from);
            polynomial(y, buffers.bits, x, from, count, factor, shift);
            MemorySegment.copy(buffers.bitsMemory, 0, buffers.powersMemory, 0, 4L * count);
            float[] powers = buffers.powers;
            for (int i = 0; i < count; i++) y[from + i] *= powers[i];
        }
    }

    /// y ← exp(r), bits ← those of 2ⁿ.
    private static void polynomial(float[] y, int[] bits, float[] x, int from, int count, float factor,
            float shift) {
        for (int i = 0; i < count; i++) {
            float z = Math.min(Math.max(factor * x[from + i] - shift, LOWEST), HIGHEST);
            float n = Math.fma(z, PER_LN2, ROUND) - ROUND;
            float r = Math.fma(n, -LN2_LOW, Math.fma(n, -LN2_HIGH, z));
            float p = Math.fma(C6, r, C5);
            p = Math.fma(p, r, C4);
            p = Math.fma(p, r, C3);
            p = Math.fma(p, r, C2);
            p = Math.fma(p, r, 1f);
            y[from + i] = Math.fma(p, r, 1f);
            bits[i] = ((int) n + 127) << 23;
        }
    }

    private static final class Buffers {
        static final int SIZE = 1024;

        final int[] bits = new int[SIZE];
        final float[] powers = new float[SIZE];
        final MemorySegment bitsMemory = MemorySegment.ofArray(bits);
        final MemorySegment powersMemory = MemorySegment.ofArray(powers);
    }

    private static final ThreadLocal<Buffers> BUFFERS = ThreadLocal.withInitial(Buffers::new);
}
