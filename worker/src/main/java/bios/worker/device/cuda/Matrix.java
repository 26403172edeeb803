package bios.worker.device.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;

import java.lang.foreign.MemorySegment;

/// `struct Matrix` of common.cuh: a matrix as kernels take it, by value or in a list.
final class Matrix {
    /// Bytes of the struct.
    static final int BYTES = 32;
    /// Alignment of the struct.
    static final int ALIGNMENT = 8;
    private static final int WIDE_BYTES = 16;

    private Matrix() {}

    /// Writes a matrix at an offset. `dtype` is the number of [bios.worker.device.DType]; `wide` tells that
    /// every row begins at a multiple of 16 bytes.
    static void write(MemorySegment to, long at, CudaTensor t) {
        to.set(JAVA_LONG_UNALIGNED, at, t.address());
        to.set(JAVA_LONG_UNALIGNED, at + 8, t.stride());
        to.set(JAVA_INT_UNALIGNED, at + 16, t.rows());
        to.set(JAVA_INT_UNALIGNED, at + 20, t.columns());
        to.set(JAVA_INT_UNALIGNED, at + 24, t.dtype().ordinal());
        to.set(JAVA_INT_UNALIGNED, at + 28, wide(t) ? 1 : 0);
    }

    /// Writes an absent matrix: its data is null.
    static void writeNone(MemorySegment to, long at) {
        to.asSlice(at, BYTES).fill((byte) 0);
    }

    private static boolean wide(CudaTensor t) {
        return t.address() % WIDE_BYTES == 0
                && (t.rows() <= 1 || (long) t.stride() * t.dtype().bytes() % WIDE_BYTES == 0);
    }
}
