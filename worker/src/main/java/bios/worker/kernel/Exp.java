package bios.worker.kernel;

import java.lang.foreign.MemorySegment;

/// The exponential function that every softmax and sigmoid here uses, so that their bits agree: exp(x) =
/// 2ⁿ·exp(r), n = round(x / ln 2), r in two parts after Cody and Waite, exp(r) by the Cephes polynomial of
/// degree 6. Within 2 units in the last place for x in [-87, 88]; outside, x is clamped to that range (so
/// exp(-∞) is about 1e-38, not 0: leave masked elements out). NaN gives NaN.
public final class Exp {
    private static final float LOWEST = -87f;
    private static final float HIGHEST = 88f;
    private static final float PER_LN2 = 1.44269504f;
    private static final float LN2_HIGH = 0.693359375f;
    private static final float LN2_LOW = -2.12194440e-4f;
    /// Adding 1.5·2²³ rounds to an integer, which then lies in the low bits.
    private static final float ROUND = 12582912f;

    private Exp() {}

    /// exp(x).
    public static float exp(float x) {
        float z = Math.min(Math.max(x, LOWEST), HIGHEST);
        float n = (z * PER_LN2 + ROUND) - ROUND;
        float r = (z - n * LN2_HIGH) - n * LN2_LOW;
        float p = 1.9875691500e-4f;
        p = p * r + 1.3981999507e-3f;
        p = p * r + 8.3334519073e-3f;
        p = p * r + 4.1665795894e-2f;
        p = p * r + 1.6666665459e-1f;
        p = p * r + 5.0000001201e-1f;
        p = p * (r * r) + r + 1f;
        return p * Float.intBitsToFloat(((int) n + 127) << 23);
    }

    /// y[i] ← exp(factor·x[i] - shift) for i < n, the bits of [#exp(float)]; y may be x. Three loops, because
    /// C2 makes no vectors of casts between int and float.
    public static void exp(float[] y, float[] x, int n, float factor, float shift) {
        var room = ROOM.get();
        for (int from = 0; from < n; from += Room.SIZE) {
            int count = Math.min(Room.SIZE, n - from);
            polynomial(y, room.bits, x, from, count, factor, shift);
            MemorySegment.copy(room.bitsMemory, 0, room.powersMemory, 0, 4L * count);
            float[] powers = room.powers;
            for (int i = 0; i < count; i++) y[from + i] *= powers[i];
        }
    }

    /// y ← exp(r), bits ← those of 2ⁿ.
    private static void polynomial(float[] y, int[] bits, float[] x, int from, int count, float factor,
            float shift) {
        for (int i = 0; i < count; i++) {
            float z = Math.min(Math.max(factor * x[from + i] - shift, LOWEST), HIGHEST);
            float n = (z * PER_LN2 + ROUND) - ROUND;
            float r = (z - n * LN2_HIGH) - n * LN2_LOW;
            float p = 1.9875691500e-4f;
            p = p * r + 1.3981999507e-3f;
            p = p * r + 8.3334519073e-3f;
            p = p * r + 4.1665795894e-2f;
            p = p * r + 1.6666665459e-1f;
            p = p * r + 5.0000001201e-1f;
            y[from + i] = p * (r * r) + r + 1f;
            bits[i] = ((int) n + 127) << 23;
        }
    }

    private static final class Room {
        static final int SIZE = 1024;

        final int[] bits = new int[SIZE];
        final float[] powers = new float[SIZE];
        final MemorySegment bitsMemory = MemorySegment.ofArray(bits);
        final MemorySegment powersMemory = MemorySegment.ofArray(powers);
    }

    private static final ThreadLocal<Room> ROOM = ThreadLocal.withInitial(Room::new);
}
