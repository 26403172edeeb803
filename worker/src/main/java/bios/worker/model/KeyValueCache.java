package bios.worker.model;

import static bios.protocol.Require.require;

import bios.worker.device.Device;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The cached keys and values of one sequence: the numbers of the pages with its positions 0 (inclusive) to
/// [#length] (exclusive). Its contents depend on one adapter.
public final class KeyValueCache implements AutoCloseable {
    private final KeyValuePages owner;
    private final List<Integer> pages = new ArrayList<>();
    private int length;

    KeyValueCache(KeyValuePages owner) {
        this.owner = owner;
    }

    /// Positions cached.
    public int length() {
        return length;
    }

    /// Pages in use.
    public int pages() {
        return pages.size();
    }

    /// Assigns the pages that `tokens` more positions need to the cache. Returns false and assigns none if
    /// too few are free or the device has no memory for them ([KeyValuePages#shortage]).
    public boolean reserve(int tokens) {
        int missing = Math.ceilDiv(length + tokens, Device.BLOCK) - pages.size();
        if (missing <= 0) return true;
        Optional<List<Integer>> taken = owner.take(missing);
        taken.ifPresent(pages::addAll);
        return taken.isPresent();
    }

    /// Releases the pages after the first `count`, which must hold nothing of the sequence: undoes
    /// [#reserve].
    public void shrink(int count) {
        require(count * (long) Device.BLOCK >= length, "%d positions in %d pages", length, count);
        while (pages.size() > count) owner.release(pages.removeLast());
    }

    /// A second sequence with the same beginning: full pages are shared, the last one is copied. Empty when
    /// there is no page for the copy.
    public Optional<KeyValueCache> fork() {
        KeyValueCache twin = new KeyValueCache(owner);
        int full = length / Device.BLOCK;
        Optional<List<Integer>> last = owner.take(length % Device.BLOCK == 0 ? 0 : 1);
        if (last.isEmpty()) return Optional.empty();
        twin.pages.addAll(last.get());
        try {
            for (int page : last.get()) owner.device().copyPage(owner.pool(), page, pages.get(full));
        } catch (Throwable e) {
            twin.close();
            throw e;
        }
        for (int i = full - 1; i >= 0; i--) {
            owner.use(pages.get(i));
            twin.pages.addFirst(pages.get(i));
        }
        twin.length = length;
        return Optional.of(twin);
    }

    /// The pages and the length of a sequence before [#evict].
    public record Evicted(List<Integer> pages, int length) {}

    /// Releases all pages; may be undone with [#restore] until somebody has written to them.
    public Evicted evict() {
        Evicted evicted = new Evicted(List.copyOf(pages), length);
        close();
        return evicted;
    }

    /// Takes back what [#evict] released; nobody else uses these pages.
    public void restore(Evicted evicted) {
        require(pages.isEmpty(), "a cache in use is restored");
        evicted.pages.forEach(owner::use);
        pages.addAll(evicted.pages);
        length = evicted.length;
    }

    /// Counts the positions of a pass as cached.
    public void advance(int tokens) {
        length += tokens;
    }

    /// Forgets the sequence and releases its pages; the cache may be used again from position 0.
    @Override public void close() {
        length = 0;
        shrink(0);
    }

    /// The block table: numbers of all pages, in the order of positions.
    int[] table() {
        return pages.stream().mapToInt(Integer::intValue).toArray();
    }

    KeyValuePages owner() {
        return owner;
    }
}
