package bios.worker.device;

/// A matrix `[rows, columns]` in the memory of a device. Shape and element type are public; only the backend
/// can access the elements. Views share memory. Created by [Device#tensor] and [Device#scratch].
public interface Tensor {
    /// Number of rows.
    int rows();

    /// Number of columns.
    int columns();

    /// Type of the elements.
    DType dtype();

    /// Rows `from` (inclusive) to `from + count` (exclusive).
    Tensor rows(int from, int count);

    /// Columns `from` (inclusive) to `from + count` (exclusive).
    Tensor columns(int from, int count);

    /// The same elements as rows of `width`: `[T, heads·width]` becomes `[T·heads, width]`. Requires
    /// contiguous rows.
    Tensor rowsOf(int width);

    /// Elements `from` (inclusive) to `from + rows·columns` (exclusive) of a single row as a matrix `[rows,
    /// columns]`: a factor in a larger allocation.
    Tensor matrix(long from, int rows, int columns);

    /// rows · columns.
    default long elements() {
        return (long) rows() * columns();
    }
}
