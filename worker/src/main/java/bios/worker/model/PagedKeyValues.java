package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.Span;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.List;

/// Keys and values copied behind those that each sequence's cache holds from earlier passes.
///
/// @param counts new positions of each sequence, in the order of the rows
record PagedKeyValues(List<KeyValueCache> caches, List<Integer> counts, Device on) implements KeyValues {
    @Override public List<Span> put(int layer, Tensor keys, Tensor values) {
        List<Span> spans = new ArrayList<>();
        int row = 0;
        for (int s = 0; s < caches.size(); s++) {
            KeyValueCache cache = caches.get(s);
            int count = counts.get(s);
            for (int done = 0; done < count; ) {
                int position = cache.length() + done;
                int at = position % Span.BLOCK;
                int n = Math.min(Span.BLOCK - at, count - done);
                on.copyByHead(cache.keys(layer, position / Span.BLOCK), at, keys.rows(row + done, n));
                on.copyByHead(cache.values(layer, position / Span.BLOCK), at, values.rows(row + done, n));
                done += n;
            }
            int pages = Math.ceilDiv(cache.length() + count, Span.BLOCK);
            List<Tensor> k = new ArrayList<>();
            List<Tensor> v = new ArrayList<>();
            for (int page = 0; page < pages; page++) {
                k.add(cache.keys(layer, page));
                v.add(cache.values(layer, page));
            }
            spans.add(new Span(row, count, cache.length(), k, v));
            row += count;
        }
        return spans;
    }
}
