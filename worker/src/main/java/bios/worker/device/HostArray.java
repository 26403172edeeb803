package bios.worker.device;

import static bios.protocol.Require.require;

/// A row-major matrix in host memory, the input of [Device#upload].
public sealed interface HostArray {
    /// Number of rows.
    int rows();

    /// Number of columns.
    int columns();

    /// Element type of the uploaded tensor.
    DType dtype();

    /// Integers: token ids, positions, row numbers.
    record Ints(int rows, int columns, int[] values) implements HostArray {
        public Ints {
            require(values.length == Math.multiplyExact(rows, columns), "%d values for [%d, %d]",
                    values.length, rows, columns);
        }

        @Override public DType dtype() {
            return DType.I32;
        }
    }

    /// Single-precision numbers.
    record Floats(int rows, int columns, float[] values) implements HostArray {
        public Floats {
            require(values.length == Math.multiplyExact(rows, columns), "%d values for [%d, %d]",
                    values.length, rows, columns);
        }

        @Override public DType dtype() {
            return DType.F32;
        }
    }

    /// A column `[n, 1]` of integers.
    static Ints column(int[] values) {
        return new Ints(values.length, 1, values);
    }

    /// A column `[n, 1]` of single-precision numbers.
    static Floats column(float[] values) {
        return new Floats(values.length, 1, values);
    }
}
