package bios.worker.device;

/// The location of keys and values for attention.
public sealed interface KeyValues {
    /// In matrices with the rows of the queries: row i of a sequence's keys is row `row + i`; both `[T,
    /// kvHeads·headDim]`.
    record Packed(Tensor keys, Tensor values) implements KeyValues {}

    /// In the pages of a layer, by the block table of the pass.
    record Paged(PagePool pool, int layer) implements KeyValues {}
}
