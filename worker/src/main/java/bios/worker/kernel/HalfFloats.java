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

    private static final ValueLayout.OfLong LONG =
            ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

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

    /// The index in the matrix of the first element of rows `row` to `row + rows` that is infinite or NaN; -1
    /// if there is none. Reads eight bytes at a time: adding one to the exponent of such an element, and of
    /// no other, carries into its sign bit.
    public static long firstNotFinite(FrozenMatrix from, int row, int rows) {
        boolean wide = from.dtype() == FrozenMatrix.WeightType.F32;
        long exponents = switch (from.dtype()) {
            case BF16 -> 0x0080_0080_0080_0080L;
            case F16 -> 0x0400_0400_0400_0400L;
            case F32 -> 0x0080_0000_0080_0000L;
        };
        long signs = wide ? 0x8000_0000_8000_0000L : 0x8000_8000_8000_8000L;
        long rowBytes = (long) from.columns() * from.dtype().bytes();
        for (int r = row; r < row + rows; r++) {
            MemorySegment one = from.memory().asSlice(r * rowBytes, rowBytes);
            int whole = (int) (rowBytes & -8L);
            long found = 0;
            for (int at = 0; at < whole; at += 8) found |= (one.get(LONG, at) & ~signs) + exponents;
            for (int at = whole; at < rowBytes; at += from.dtype().bytes())
                if (!Float.isFinite(value(one, from.dtype(), at))) found = signs;
            if ((found & signs) == 0) continue;
            for (int i = 0; i < from.columns(); i++)
                if (!Float.isFinite(value(one, from.dtype(), (long) i * from.dtype().bytes())))
                    return (long) r * from.columns() + i;
        }
        return -1;
    }

    /// An element of a matrix of a model file.
    ///
    /// @param index of it, row by row
    public static float element(FrozenMatrix from, long index) {
        return value(from.memory(), from.dtype(), index * from.dtype().bytes());
    }

    private static float value(MemorySegment memory, FrozenMatrix.WeightType dtype, long at) {
        return switch (dtype) {
            case BF16 -> fromBf16(memory.get(SHORT, at));
            case F16 -> Float.float16ToFloat(memory.get(SHORT, at));
            case F32 -> memory.get(FLOAT, at);
        };
    }
}
