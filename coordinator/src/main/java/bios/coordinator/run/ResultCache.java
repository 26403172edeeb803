package bios.coordinator.run;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// The outcomes of one run that clients may retrieve. Outcomes after the recovery point are in memory.
/// Outcomes before it are in pages in the blob store, and in memory as long as there is room; fetched
/// outcomes are evicted first, then the oldest. Belongs to one actor.
final class ResultCache {
    private static final long PAGES = 256;
    private static final long FETCHED_SHARE = 32;
    private final int maxCount;
    private final long maxBytes;
    private final long memoryBytes;
    private final TreeMap<Long, FinishedOperation> byPosition = new TreeMap<>();
    private final TreeMap<Long, FinishedOperation> fetched = new TreeMap<>();
    private IntervalSet everFetched = IntervalSet.EMPTY;
    private final Map<Long, Long> bySeq = new HashMap<>();
    private long bytes;
    private long unsavedBytes;
    private long saved;

    /// @param maxCount most results that are kept, in memory and in pages
    /// @param maxBytes most bytes of these results
    /// @param memoryBytes most bytes in memory of results that are in pages as well
    ResultCache(int maxCount, long maxBytes, long memoryBytes) {
        this.maxCount = maxCount;
        this.maxBytes = maxBytes;
        this.memoryBytes = memoryBytes;
    }

    void add(FinishedOperation kept) {
        remove(kept.position());
        byPosition.put(kept.position(), kept);
        bySeq.put(kept.seq(), kept.position());
        bytes += kept.bytes();
        if (kept.position() > saved) unsavedBytes += kept.bytes();
        shrink(memoryBytes);
    }

    private void remove(long position) {
        FinishedOperation gone = byPosition.remove(position);
        if (gone == null) return;
        fetched.remove(position);
        bySeq.remove(gone.seq());
        bytes -= gone.bytes();
        if (position > saved) unsavedBytes -= gone.bytes();
    }

    Optional<FinishedOperation> bySeq(long seq) {
        return Optional.ofNullable(bySeq.get(seq)).map(byPosition::get);
    }

    /// Marks a result as fetched by its client, which may retrieve it again as long as it is kept.
    void fetched(FinishedOperation kept) {
        everFetched = everFetched.with(kept.position());
        if (byPosition.containsKey(kept.position())) fetched.put(kept.position(), kept);
    }

    /// Records that results up to `position` are in pages and need not stay in memory.
    void saved(long position) {
        if (position <= saved) return;
        unsavedBytes -= byPosition.subMap(saved, false, position, true).values().stream()
                .mapToLong(FinishedOperation::bytes).sum();
        saved = position;
        shrink(memoryBytes);
    }

    /// Evicts results that are in pages until these take at most `least` bytes.
    void shrink(long least) {
        while (bytes - unsavedBytes > least) {
            var old = fetched.headMap(saved, true);
            long first = old.isEmpty() ? byPosition.firstKey() : old.firstKey();
            if (first > saved) return;
            remove(first);
        }
    }

    /// Bytes in memory.
    long bytes() {
        return bytes;
    }

    /// Bytes in memory of results that are in no page yet.
    long unsavedBytes() {
        return unsavedBytes;
    }

    /// The results that are in no page yet, up to a position.
    List<FinishedOperation> unsaved(long position) {
        if (position <= saved) return List.of();
        return List.copyOf(byPosition.subMap(saved, false, position, true).values());
    }

    /// Whether all these results have been fetched.
    boolean allFetched(Collection<FinishedOperation> some) {
        return some.stream().allMatch(kept -> everFetched.contains(kept.position()));
    }

    // Pages

    /// All of a page's results, if they are in memory.
    Optional<List<FinishedOperation>> inMemory(ResultsPage page) {
        List<FinishedOperation> all = List.copyOf(byPosition.subMap(page.first(), true, page.last(),
                true).values());
        return all.size() == page.count() ? Optional.of(all) : Optional.empty();
    }

    /// The page, marked as fetched if all its results have been fetched by now.
    ResultsPage refreshed(ResultsPage page) {
        if (page.fetched()) return page;
        for (long at = page.first(); at <= page.last(); at++) if (!everFetched.contains(at)) return page;
        return page.asFetched();
    }

    /// Whether the last page is so small that the next results are added to it.
    boolean acceptsMore(ResultsPage last) {
        return last.bytes() < maxBytes / PAGES && last.count() < maxCount / PAGES;
    }

    /// The pages that are kept, oldest first: the newest pages within the limits, and of pages whose results
    /// were all fetched only the newest within a small part of the limits. What was fetched of older results
    /// is forgotten: a client that fetches every other result would leave an interval for each.
    List<ResultsPage> kept(List<ResultsPage> pages) {
        List<ResultsPage> newest = new ArrayList<>();
        long count = 0;
        long size = 0;
        for (ResultsPage page : pages.reversed()) {
            long share = page.fetched() ? FETCHED_SHARE : 1;
            boolean fits = count + page.count() <= maxCount / share
                    && size + page.bytes() <= maxBytes / share;
            if (!fits && !newest.isEmpty()) continue;
            count += page.count();
            size += page.bytes();
            newest.addFirst(page);
        }
        if (!newest.isEmpty()) everFetched = everFetched.after(newest.getFirst().first() - 1);
        return newest;
    }

    /// How many intervals of positions the cache remembers as fetched.
    int fetchedIntervals() {
        return everFetched.bounds().length / 2;
    }
}
