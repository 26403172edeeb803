package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Copies rows between tensors and arrays: C2 vectorizes loops over arrays best.
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

    /// All elements of a matrix of [DType#I32], row by row.
    static int[] ints(HostTensor from) {
        require(from.dtype() == DType.I32, "elements are %s, not I32", from.dtype());
        int n = from.columns();
        int[] values = new int[Math.multiplyExact(from.rows(), n)];
        for (int row = 0; row < from.rows(); row++)
            MemorySegment.copy(from.memory(), ValueLayout.JAVA_INT, offset(from, row, 0), values, row * n, n);
        return values;
    }

    /// A column `[n, 1]` of [DType#I32].
    static int[] column(HostTensor from, int n) {
        require(from.rows() == n && from.columns() == 1, "[%d, %d] is not a column of %d", from.rows(),
                from.columns(), n);
        return ints(from);
    }

    /// Targets of rows, K of each, row by row.
    ///
    /// @param logprobs `[rows, K]`
    static int[] targets(HostTensor from, HostTensor logprobs) {
        require(from.rows() == logprobs.rows() && from.columns() == logprobs.columns(),
                "targets [%d, %d] beside log-probabilities [%d, %d]", from.rows(), from.columns(),
                logprobs.rows(), logprobs.columns());
        return ints(from);
    }

    /// Columns from 0 of row `row` of a matrix of [DType#I32] ← from[0..columns).
    static void store(HostTensor to, int row, int[] from) {
        require(to.dtype() == DType.I32, "elements are %s, not I32", to.dtype());
        MemorySegment.copy(from, 0, to.memory(), ValueLayout.JAVA_INT, offset(to, row, 0), to.columns());
    }

    /// Row `row` of `to` ← row `fromRow` of `from`, of one element type and width.
    static void copy(HostTensor to, int row, HostTensor from, int fromRow) {
        int bytes = to.dtype().bytes();
        MemorySegment.copy(from.memory(), (long) bytes * fromRow * from.stride(), to.memory(),
                (long) bytes * row * to.stride(), (long) bytes * to.columns());
    }

    static float get(HostTensor from, int row) {
        return from.memory().get(ValueLayout.JAVA_FLOAT, offset(from, row, 0));
    }

    static void set(HostTensor to, int row, float value) {
        to.memory().set(ValueLayout.JAVA_FLOAT, offset(to, row, 0), value);
    }

    static float get(HostTensor from, int row, int column) {
        return from.memory().get(ValueLayout.JAVA_FLOAT, offset(from, row, column));
    }

    static void set(HostTensor to, int row, int column, float value) {
        to.memory().set(ValueLayout.JAVA_FLOAT, offset(to, row, column), value);
    }

    private static long offset(HostTensor t, int row, int column) {
        return 4 * ((long) row * t.stride() + column);
    }
}
