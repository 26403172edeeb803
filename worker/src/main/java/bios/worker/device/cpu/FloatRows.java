package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Copies floats between arrays and tensors of [DType#F32] or [DType#BF16]. Widening bf16 is exact; narrowing
/// rounds to nearest even.
final class FloatRows {
    private FloatRows() {}

    /// to[at..at+count) ← columns `column` to `column + count` of row `row`.
    ///
    /// @param scratch at least `count` shorts
    static void load(float[] to, int at, HostTensor from, int row, int column, int count, short[] scratch) {
        switch (from.dtype()) {
            case F32 -> Rows.load(to, at, from, row, column, count);
            case BF16 -> {
                MemorySegment.copy(from.memory(), ValueLayout.JAVA_SHORT, offset(from, row, column), scratch,
                        0, count);
                for (int i = 0; i < count; i++) to[at + i] = HalfFloats.fromBf16(scratch[i]);
            }
            case I32, F64 -> require(false, "element type %s is not F32 or BF16", from.dtype());
        }
    }

    /// Columns `column` to `column + count` of row `row` ← from[at..at+count).
    ///
    /// @param scratch at least `count` shorts
    static void store(HostTensor to, int row, int column, float[] from, int at, int count, short[] scratch) {
        switch (to.dtype()) {
            case F32 -> Rows.store(to, row, column, from, at, count);
            case BF16 -> {
                for (int i = 0; i < count; i++) scratch[i] = HalfFloats.toBf16(from[at + i]);
                MemorySegment.copy(scratch, 0, to.memory(), ValueLayout.JAVA_SHORT, offset(to, row, column),
                        count);
            }
            case I32, F64 -> require(false, "element type %s is not F32 or BF16", to.dtype());
        }
    }

    /// to ← from, of the same shape; each is bf16 or fp32.
    static void convert(HostTensor to, HostTensor from, Pool pool, Workspace[] workspaces) {
        RowVerbs.sameShape(to, from);
        int n = to.columns();
        pool.rows(to.rows(), n, 4, (row, thread) -> {
            float[] values = workspaces[thread].row(0, n);
            short[] scratch = workspaces[thread].shorts(n);
            load(values, 0, from, row, 0, n, scratch);
            store(to, row, 0, values, 0, n, scratch);
        });
    }

    private static long offset(HostTensor t, int row, int column) {
        return 2 * ((long) row * t.stride() + column);
    }
}
