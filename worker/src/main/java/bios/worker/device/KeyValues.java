package bios.worker.device;

/// Where attention finds keys and values.
public sealed interface KeyValues {
    /// Packed like the queries: row i of a sequence's keys is row `row + i`; both `[T, kvHeads·headDim]`.
    record Packed(Tensor keys, Tensor values) implements KeyValues {}

    /// In the pages of a layer, by the block table of the pass.
    record Paged(PagePool pool, int layer) implements KeyValues {}
}
