package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Tensor;
import java.lang.foreign.MemorySegment;

/// A matrix in the CPU's memory: `rows` rows of `columns` elements, row r beginning at element r·stride of
/// `memory`. Views share memory. `memory` is native (off heap), 64-byte aligned for whole tensors.
///
/// @param stride elements between the beginnings of two rows, at least `columns`
record HostTensor(MemorySegment memory, DType dtype, int rows, int columns, int stride) implements Tensor {
    HostTensor {
        // The conditions are tested here and not by require, which would format arguments on every call.
        if (rows < 0 || columns < 0 || stride < columns)
            require(false, "bad shape [%d, %d] stride %d", rows, columns, stride);
    }

    /// A matrix of fp32.
    HostTensor(MemorySegment memory, int rows, int columns, int stride) {
        this(memory, DType.F32, rows, columns, stride);
    }

    /// The tensor as this backend's type.
    static HostTensor of(Tensor tensor) {
        if (tensor instanceof HostTensor own) return own;
        throw new IllegalArgumentException("a tensor of another device");
    }

    @Override public HostTensor rows(int from, int count) {
        if (from < 0 || count < 0 || from + count > rows)
            require(false, "rows %d+%d of %d", from, count, rows);
        return new HostTensor(slice((long) from * stride), dtype, count, columns, stride);
    }

    @Override public HostTensor columns(int from, int count) {
        if (from < 0 || count < 0 || from + count > columns)
            require(false, "columns %d+%d of %d", from, count, columns);
        return new HostTensor(slice(from), dtype, rows, count, stride);
    }

    private MemorySegment slice(long elements) {
        return memory.asSlice(Math.min(dtype.bytes() * elements, memory.byteSize()));
    }

    @Override public HostTensor rowsOf(int width) {
        require(stride == columns && columns % width == 0, "cannot view [%d, %d] stride %d as rows of %d",
                rows, columns, stride, width);
        return new HostTensor(memory, dtype, Math.multiplyExact(rows, columns / width), width, width);
    }

    @Override public HostTensor matrix(long from, int rows, int columns) {
        require(this.rows == 1 && from >= 0 && from + (long) rows * columns <= this.columns,
                "a matrix [%d, %d] from element %d of [%d, %d]", rows, columns, from, this.rows,
                this.columns);
        return new HostTensor(slice(from), dtype, rows, columns, columns);
    }
}
