package bios.worker.model;

import bios.worker.device.Span;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// What one decoding sequence remembers: keys and values of its positions 0 (inclusive) to [#length]
/// (exclusive). It belongs to one adapter: its contents depend on it.
public final class KeyValueCache implements AutoCloseable {
    private final KeyValuePages pool;
    private final List<KeyValuePages.Page> pages = new ArrayList<>();
    private int length;

    KeyValueCache(KeyValuePages pool) {
        this.pool = pool;
    }

    /// Positions held.
    public int length() {
        return length;
    }

    /// Pages held.
    public int pages() {
        return pages.size();
    }

    /// Takes the pages that `tokens` more positions need. False, with nothing taken,
    /// when the pool has too few.
    public boolean reserve(int tokens) {
        int missing = Math.ceilDiv(length + tokens, Span.BLOCK) - pages.size();
        if (missing > pool.free()) return false;
        for (int i = 0; i < missing; i++) pages.add(pool.take().orElseThrow());
        return true;
    }

    /// A second sequence with the same beginning: full pages are shared, the last one is copied. Empty when
    /// the pool has no page for the copy.
    public Optional<KeyValueCache> fork() {
        KeyValueCache twin = new KeyValueCache(pool);
        int full = length / Span.BLOCK;
        if (length % Span.BLOCK != 0) {
            Optional<KeyValuePages.Page> last = pool.take();
            if (last.isEmpty()) return Optional.empty();
            pool.on().copy(last.get().memory(), pages.get(full).memory());
            twin.pages.add(last.get());
        }
        for (int i = full - 1; i >= 0; i--) {
            pages.get(i).share();
            twin.pages.addFirst(pages.get(i));
        }
        twin.length = length;
        return Optional.of(twin);
    }

    /// Forgets the sequence and gives its pages back; it may be used again from position 0.
    @Override public void close() {
        pages.forEach(pool::release);
        pages.clear();
        length = 0;
    }

    Tensor keys(int layer, int page) {
        return pages.get(page).keys(layer);
    }

    Tensor values(int layer, int page) {
        return pages.get(page).values(layer);
    }

    void advance(int tokens) {
        length += tokens;
    }
}
