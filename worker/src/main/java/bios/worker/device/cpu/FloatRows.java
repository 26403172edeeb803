package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Copies between float arrays and tensors of [DType#BF16] or [DType#F32]: reads widen bf16 exactly, writes
/// round to nearest even.
final class FloatRows {
    private FloatRows() {}

    /// to[at..at+count) ← columns `column` to `column + count` of row `row`.
    ///
    /// @param buffer room for `count` shorts
    static void load(float[] to, int at, HostTensor from, int row, int column, int count, short[] buffer) {
        switch (from.dtype()) {
            case F32 -> Rows.load(to, at, from, row, column, count);
            case BF16 -> {
                MemorySegment.copy(from.memory(), ValueLayout.JAVA_SHORT, offset(from, row, column), buffer,
                        0, count);
                for (int i = 0; i < count; i++) to[at + i] = HalfFloats.fromBf16(buffer[i]);
            }
            case I32, F64 -> require(false, "elements are %s, not floats", from.dtype());
        }
    }

    /// Columns `column` to `column + count` of row `row` ← from[at..at+count).
    ///
    /// @param buffer room for `count` shorts
    static void store(HostTensor to, int row, int column, float[] from, int at, int count, short[] buffer) {
        switch (to.dtype()) {
            case F32 -> Rows.store(to, row, column, from, at, count);
            case BF16 -> {
                for (int i = 0; i < count; i++) buffer[i] = HalfFloats.toBf16(from[at + i]);
                MemorySegment.copy(buffer, 0, to.memory(), ValueLayout.JAVA_SHORT, offset(to, row, column),
                        count);
            }
            case I32, F64 -> require(false, "elements are %s, not floats", to.dtype());
        }
    }

    /// to ← from, of the same shape; each is bf16 or fp32.
    static void convert(HostTensor to, HostTensor from, Pool pool, Workspace[] workspaces) {
        RowVerbs.sameShape(to, from);
        int n = to.columns();
        pool.rows(to.rows(), n, 4, (row, thread) -> {
            float[] values = workspaces[thread].row(0, n);
            short[] buffer = workspaces[thread].shorts(n);
            load(values, 0, from, row, 0, n, buffer);
            store(to, row, 0, values, 0, n, buffer);
        });
    }

    private static long offset(HostTensor t, int row, int column) {
        return 2 * ((long) row * t.stride() + column);
    }
}
