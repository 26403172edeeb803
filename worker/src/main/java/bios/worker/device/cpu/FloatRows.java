package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.kernel.HalfFloats;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Moves floats to and from tensors of [DType#BF16] or [DType#F32]: bf16 is widened exactly, and rounded to
/// nearest even.
final class FloatRows {
    private FloatRows() {}

    /// to[at..at+count) ← columns `column` to `column + count` of row `row`.
    ///
    /// @param room room for `count` shorts
    static void load(float[] to, int at, HostTensor from, int row, int column, int count, short[] room) {
        switch (from.dtype()) {
            case F32 -> Rows.load(to, at, from, row, column, count);
            case BF16 -> {
                MemorySegment.copy(from.memory(), ValueLayout.JAVA_SHORT, offset(from, row, column), room, 0,
                        count);
                for (int i = 0; i < count; i++) to[at + i] = HalfFloats.fromBf16(room[i]);
            }
            case I32, F64 -> require(false, "elements are %s, not floats", from.dtype());
        }
    }

    /// Columns `column` to `column + count` of row `row` ← from[at..at+count).
    ///
    /// @param room room for `count` shorts
    static void store(HostTensor to, int row, int column, float[] from, int at, int count, short[] room) {
        switch (to.dtype()) {
            case F32 -> Rows.store(to, row, column, from, at, count);
            case BF16 -> {
                for (int i = 0; i < count; i++) room[i] = HalfFloats.toBf16(from[at + i]);
                MemorySegment.copy(room, 0, to.memory(), ValueLayout.JAVA_SHORT, offset(to, row, column),
                        count);
            }
            case I32, F64 -> require(false, "elements are %s, not floats", to.dtype());
        }
    }

    /// to ← from, of one shape, each of either type.
    static void convert(HostTensor to, HostTensor from, Pool pool, Workspace[] workspaces) {
        RowVerbs.sameShape(to, from);
        int n = to.columns();
        pool.rows(to.rows(), n, 4, (row, member) -> {
            float[] values = workspaces[member].row(0, n);
            short[] room = workspaces[member].shorts(n);
            load(values, 0, from, row, 0, n, room);
            store(to, row, 0, values, 0, n, room);
        });
    }

    private static long offset(HostTensor t, int row, int column) {
        return 2 * ((long) row * t.stride() + column);
    }
}
