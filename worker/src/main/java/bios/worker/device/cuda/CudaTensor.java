package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Tensor;

/// A matrix in the memory of a card: `rows` rows of `columns` elements, row r beginning at element r·stride.
/// Views share memory.
///
/// @param address of the first element
/// @param stride elements between the beginnings of two rows, at least `columns`
record CudaTensor(long address, DType dtype, int rows, int columns, int stride) implements Tensor {
    CudaTensor {
        // The conditions are tested here and not by require, which would format arguments on every call.
        if (rows < 0 || columns < 0 || stride < columns)
            require(false, "bad shape [%d, %d] stride %d", rows, columns, stride);
    }

    /// The tensor as this backend's type.
    static CudaTensor of(Tensor tensor) {
        if (tensor instanceof CudaTensor own) return own;
        throw new IllegalArgumentException("a tensor of another device");
    }

    /// Throws if the shapes differ.
    static void sameShape(Tensor a, Tensor b) {
        if (a.rows() != b.rows() || a.columns() != b.columns())
            require(false, "[%d, %d] beside [%d, %d]", a.rows(), a.columns(), b.rows(), b.columns());
    }

    /// Throws if it is neither F32 nor BF16.
    CudaTensor floats() {
        if (!dtype.isFloat()) require(false, "element type %s is not F32 or BF16", dtype);
        return this;
    }

    /// Bytes from the first element to the end of the last row.
    long span() {
        return rows == 0 || columns == 0 ? 0 : ((rows - 1L) * stride + columns) * dtype.bytes();
    }

    /// Whether rows follow each other without a gap.
    boolean dense() {
        return stride == columns || rows <= 1;
    }

    private long at(long elements) {
        return address + elements * dtype.bytes();
    }

    @Override public CudaTensor rows(int from, int count) {
        if (from < 0 || count < 0 || from + count > rows)
            require(false, "rows %d+%d of %d", from, count, rows);
        return new CudaTensor(at((long) from * stride), dtype, count, columns, stride);
    }

    @Override public CudaTensor columns(int from, int count) {
        if (from < 0 || count < 0 || from + count > columns)
            require(false, "columns %d+%d of %d", from, count, columns);
        return new CudaTensor(at(from), dtype, rows, count, stride);
    }

    @Override public CudaTensor rowsOf(int width) {
        require(stride == columns && columns % width == 0, "cannot view [%d, %d] stride %d as rows of %d",
                rows, columns, stride, width);
        return new CudaTensor(address, dtype, Math.multiplyExact(rows, columns / width), width, width);
    }

    @Override public CudaTensor matrix(long from, int rows, int columns) {
        require(this.rows == 1 && from >= 0 && from + (long) rows * columns <= this.columns,
                "a matrix [%d, %d] from element %d of [%d, %d]", rows, columns, from, this.rows,
                this.columns);
        return new CudaTensor(at(from), dtype, rows, columns, columns);
    }
}
