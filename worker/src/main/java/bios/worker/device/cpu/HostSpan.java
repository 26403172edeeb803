package bios.worker.device.cpu;

import bios.worker.device.AttentionShape;
import bios.worker.device.Device;
import java.util.List;

/// One sequence's share of an attention call: its queries are rows `row` to `row + count` of q, at positions
/// `position` to `position + count` of the sequence; its keys and values from position 0 lie in blocks of
/// [#BLOCK] positions (the last may be partly filled). In training the blocks are views of packed rows; in
/// decoding they are pages of the KV cache. Attention always processes blocks in order from position 0, so
/// that a query gives the same bits in training, prefill and decoding.
///
/// @param keys per block `[≤ BLOCK, kvHeads·headDim]`, or head by head `[kvHeads·BLOCK, headDim]`; together
///     of at least position + count positions
/// @param values as keys
record HostSpan(int row, int count, int position, List<HostTensor> keys, List<HostTensor> values) {
    /// Positions of one block of keys.
    static final int BLOCK = Device.BLOCK;

    /// One head's share `[≤ BLOCK, headDim]` of a block of keys or values.
    static HostTensor head(HostTensor block, int head, AttentionShape shape) {
        return block.columns() == shape.kvHeads() * shape.headDim()
                ? block.columns(head * shape.headDim(), shape.headDim()) : block.rows(head * BLOCK, BLOCK);
    }
}
