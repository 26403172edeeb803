package bios.worker.device.cpu;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Moves rows between tensors and arrays: C2 makes its best loops on arrays.
final class Rows {
    private Rows() {}

    /// to[0..columns) ← row `row`.
    static void load(float[] to, HostTensor from, int row) {
        load(to, 0, from, row, 0, from.columns());
    }

    /// to[at..at+count) ← columns `column` to `column + count` of row `row`.
    static void load(float[] to, int at, HostTensor from, int row, int column, int count) {
        MemorySegment.copy(from.memory(), ValueLayout.JAVA_FLOAT, offset(from, row, column), to, at, count);
    }

    /// Row `row` ← from[0..columns).
    static void store(HostTensor to, int row, float[] from) {
        store(to, row, 0, from, 0, to.columns());
    }

    /// Columns `column` to `column + count` of row `row` ← from[at..at+count).
    static void store(HostTensor to, int row, int column, float[] from, int at, int count) {
        MemorySegment.copy(from, at, to.memory(), ValueLayout.JAVA_FLOAT, offset(to, row, column), count);
    }

    static float get(HostTensor from, int row) {
        return from.memory().get(ValueLayout.JAVA_FLOAT, offset(from, row, 0));
    }

    static void set(HostTensor to, int row, float value) {
        to.memory().set(ValueLayout.JAVA_FLOAT, offset(to, row, 0), value);
    }

    private static long offset(HostTensor t, int row, int column) {
        return 4 * ((long) row * t.stride() + column);
    }
}
