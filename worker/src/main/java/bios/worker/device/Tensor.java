package bios.worker.device;

/// A matrix `[rows, columns]` in the memory of a device: shape and element type are known to all, the
/// elements to its backend only. Views share memory. Made by [Device#tensor] and [Device#scratch].
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

    /// The same elements as rows of `width`: `[T, heads·width]` becomes `[T·heads, width]`. Needs a tensor
    /// whose rows lie one after another.
    Tensor rowsOf(int width);

    /// Elements `from` (inclusive) to `from + rows·columns` (exclusive) of a single row as a matrix
    /// `[rows, columns]`: a factor inside a slab.
    Tensor matrix(long from, int rows, int columns);

    /// rows · columns.
    default long elements() {
        return (long) rows() * columns();
    }
}
