package bios.worker.device;

import static bios.protocol.Require.require;

import java.lang.foreign.MemorySegment;

/// A matrix of fp32 on a device: `rows` rows of `columns` elements, row r beginning at element r·stride of
/// `memory`. Views share memory. On the CPU `memory` is native (off heap), 64-byte aligned for whole tensors.
///
/// @param stride elements between the beginnings of two rows, at least `columns`
public record Tensor(MemorySegment memory, int rows, int columns, int stride) {
    public Tensor {
        // the conditions stand outside: words for a failure are put together only when there is one
        if (rows < 0 || columns < 0 || stride < columns)
            require(false, "bad shape [%d, %d] stride %d", rows, columns, stride);
    }

    /// Rows `from` (inclusive) to `from + count` (exclusive).
    public Tensor rows(int from, int count) {
        if (from < 0 || count < 0 || from + count > rows)
            require(false, "rows %d+%d of %d", from, count, rows);
        return new Tensor(memory.asSlice(Math.min(4L * from * stride, memory.byteSize())), count, columns,
                stride);
    }

    /// Columns `from` (inclusive) to `from + count` (exclusive).
    public Tensor columns(int from, int count) {
        if (from < 0 || count < 0 || from + count > columns)
            require(false, "columns %d+%d of %d", from, count, columns);
        return new Tensor(memory.asSlice(Math.min(4L * from, memory.byteSize())), rows, count, stride);
    }

    /// The same elements as rows of `width`: `[T, heads·width]` becomes
    /// `[T·heads, width]`. Needs stride = columns.
    public Tensor rowsOf(int width) {
        require(stride == columns && columns % width == 0, "cannot see [%d, %d] stride %d as rows of %d",
                rows, columns, stride, width);
        return new Tensor(memory, Math.multiplyExact(rows, columns / width), width, width);
    }

    /// rows · columns.
    public long elements() {
        return (long) rows * columns;
    }
}
