package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.KeyValues;
import bios.worker.device.Sequence;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/// The locations of each sequence's keys and values, in the form that the attention kernels use.
final class KeyValueSpans {
    private static final int BLOCK = Device.BLOCK;

    private KeyValueSpans() {}

    /// The spans of an attention call.
    static List<HostSpan> of(KeyValues source, HostSequences sequences, Fp32Operands operands) {
        return switch (source) {
            case KeyValues.Packed packed -> packed(packed, sequences, operands);
            case KeyValues.Paged paged ->
                paged(HostPages.of(paged.pool()), paged.layer(), sequences, operands);
        };
    }

    /// Spans of whole sequences: views of packed rows.
    static List<HostSpan> packed(KeyValues.Packed source, HostSequences sequences, Fp32Operands operands) {
        var keys = operands.read(source.keys());
        var values = operands.read(source.values());
        require(keys.rows() == sequences.rows() && values.rows() == sequences.rows(),
                "%d keys and %d values for %d rows", keys.rows(), values.rows(), sequences.rows());
        var spans = new ArrayList<HostSpan>();
        for (var s : sequences.sequences()) {
            require(s.position() == 0, "packed keys from position %d", s.position());
            spans.add(new HostSpan(s.row(), s.count(), 0, blocks(keys, s), blocks(values, s)));
        }
        return spans;
    }

    private static List<HostTensor> blocks(HostTensor packed, Sequence s) {
        var blocks = new ArrayList<HostTensor>();
        for (int i = 0; i < s.count(); i += BLOCK)
            blocks.add(packed.rows(s.row() + i, Math.min(BLOCK, s.count() - i)));
        return blocks;
    }

    /// Spans over pages; each bf16 page is widened once.
    private static List<HostSpan> paged(HostPages pool, int layer, HostSequences sequences,
            Fp32Operands operands) {
        boolean wide = pool.format().dtype() == DType.F32;
        Map<Integer, HostTensor> keys = new HashMap<>();
        Map<Integer, HostTensor> values = new HashMap<>();
        Function<Integer, HostTensor> widenKeys = n -> operands.read(pool.page(n).keys().get(layer));
        Function<Integer, HostTensor> widenValues = n -> operands.read(pool.page(n).values().get(layer));
        var spans = new ArrayList<HostSpan>();
        for (var s : sequences.sequences()) {
            var k = new ArrayList<HostTensor>();
            var v = new ArrayList<HostTensor>();
            for (int i = 0; i < Math.ceilDiv(s.position() + s.count(), BLOCK); i++) {
                int number = s.pages()[i];
                k.add(wide ? widenKeys.apply(number) : keys.computeIfAbsent(number, widenKeys));
                v.add(wide ? widenValues.apply(number) : values.computeIfAbsent(number, widenValues));
            }
            spans.add(new HostSpan(s.row(), s.count(), s.position(), k, v));
        }
        return spans;
    }

    /// Copies the keys and values of the rows of a pass to the pages of a layer.
    ///
    /// @param keys, values of the pool's element type
    static void append(HostPages pool, int layer, HostTensor keys, HostTensor values, HostSequences sequences,
            Pool threads) {
        var shape = pool.format();
        require(keys.rows() == sequences.rows() && keys.columns() == shape.kvHeads() * shape.headDim(),
                "keys [%d, %d] for %d rows", keys.rows(), keys.columns(), sequences.rows());
        RowVerbs.sameShape(keys, values);
        var all = sequences.sequences();
        threads.run(all.size(), 8L * keys.elements(), (i, _) -> {
            var s = all.get(i);
            for (int done = 0; done < s.count(); ) {
                int position = s.position() + done;
                int n = Math.min(BLOCK - position % BLOCK, s.count() - done);
                var page = pool.page(s.pages()[position / BLOCK]);
                byHead(page.keys().get(layer), position % BLOCK, keys.rows(s.row() + done, n));
                byHead(page.values().get(layer), position % BLOCK, values.rows(s.row() + done, n));
                done += n;
            }
        });
    }

    /// Row i of head h of `rows` `[n, heads·headDim]` becomes row h·[Device#BLOCK] + at + i of `block`
    /// `[heads·BLOCK, headDim]`.
    private static void byHead(HostTensor block, int at, HostTensor rows) {
        int dim = block.columns();
        for (int head = 0; head * dim < rows.columns(); head++) {
            var from = rows.columns(head * dim, dim);
            for (int row = 0; row < rows.rows(); row++)
                Rows.copy(block, head * BLOCK + at + row, from, row);
        }
    }
}
