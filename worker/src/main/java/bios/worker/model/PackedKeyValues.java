package bios.worker.model;

import bios.worker.device.Span;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.List;

/// Keys and values of whole sequences, left where the projections wrote them.
///
/// @param lengths positions of each sequence, in the order of the rows
record PackedKeyValues(List<Integer> lengths) implements KeyValues {
    @Override public List<Span> put(int layer, Tensor keys, Tensor values) {
        List<Span> spans = new ArrayList<>();
        int row = 0;
        for (int length : lengths) {
            spans.add(new Span(row, length, 0, blocks(keys, row, length), blocks(values, row, length)));
            row += length;
        }
        return spans;
    }

    private static List<Tensor> blocks(Tensor packed, int row, int length) {
        List<Tensor> blocks = new ArrayList<>();
        for (int i = 0; i < length; i += Span.BLOCK)
            blocks.add(packed.rows(row + i, Math.min(Span.BLOCK, length - i)));
        return blocks;
    }
}
