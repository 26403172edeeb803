package bios.worker.kernel;

import bios.worker.device.FrozenMatrix;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/// Conversions between fp32 and the 16-bit element types of model files, bf16 and fp16.
public final class HalfFloats {
    private static final ValueLayout.OfShort SHORT =
            ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfFloat FLOAT =
            ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

    private HalfFloats() {}

    /// x rounded to bfloat16, to nearest, ties to even (IEEE 754), as its upper 16 bits. NaN stays NaN.
    public static short toBf16(float x) {
        int bits = Float.floatToRawIntBits(x);
        if (x != x) return (short) ((bits >>> 16) | 0x40);
        return (short) ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
    }

    /// Rounds bits[0..n), each the bits of an fp32 value, to bf16 precision; they stay fp32 bits.
    public static void roundToBf16InPlace(int[] bits, int n) {
        for (int i = 0; i < n; i++) bits[i] = (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) & 0xffff0000;
    }

    /// The fp32 value of a bfloat16.
    public static float fromBf16(short bits) {
        return Float.intBitsToFloat(bits << 16);
    }

    /// x rounded to bfloat16 and back.
    public static float rounded(float x) {
        return fromBf16(toBf16(x));
    }

    /// x approximated by the sum of two bfloat16: x rounded, and the remainder rounded. About 16 bits of
    /// precision remain.
    public static float split(float x) {
        float high = rounded(x);
        return high + rounded(x - high);
    }

    /// to[0..columns) ← row `row` of a matrix of a model file.
    public static void row(float[] to, FrozenMatrix from, int row) {
        MemorySegment memory = from.memory();
        int n = from.columns();
        long at = (long) row * n * from.dtype().bytes();
        switch (from.dtype()) {
            case BF16 -> {
                for (int i = 0; i < n; i++) to[i] = fromBf16(memory.get(SHORT, at + 2L * i));
            }
            case F16 -> {
                for (int i = 0; i < n; i++) to[i] = Float.float16ToFloat(memory.get(SHORT, at + 2L * i));
            }
            case F32 -> MemorySegment.copy(memory, FLOAT, at, to, 0, n);
        }
    }
}
