package bios.worker.sample;

import static bios.protocol.Require.require;

import bios.worker.adapter.Adapter;
import bios.worker.device.Device;
import bios.worker.model.KeyValueCache;
import bios.worker.model.KeyValuePages;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/// One step of a sampler's scheduler: admits waiting sequences, reserves and evicts pages, and chooses the
/// tokens of the next pass. Until the pass is complete, all of it can be undone.
final class SchedulerStep {
    private final TreeSet<SampledSequence> waiting;
    private final TreeSet<SampledSequence> active;
    private final KeyValuePages pages;
    private final SamplerSettings settings;
    private final Deque<Runnable> undo = new ArrayDeque<>();
    private final Set<Request> participants = new HashSet<>();

    SchedulerStep(TreeSet<SampledSequence> waiting, TreeSet<SampledSequence> active, KeyValuePages pages,
            SamplerSettings settings) {
        this.waiting = waiting;
        this.active = active;
        this.pages = pages;
        this.settings = settings;
    }

    /// The tokens of the next pass. Tokens of the same adapter are adjacent, because they share products.
    /// Throws [bios.worker.device.OutOfDeviceMemory] if the only sequence to serve cannot get its pages.
    List<ScheduledTokens> plan() {
        active.forEach(s -> participants.add(s.request));
        admit();
        List<ScheduledTokens> scheduled = new ArrayList<>();
        for (SampledSequence s : List.copyOf(active))
            if (s.cache().isPresent() && s.uncached() == 1 && reserve(s))
                scheduled.add(new ScheduledTokens(s, 1));
        int left = settings.passTokens() - scheduled.size();
        for (SampledSequence s : active) {
            if (s.uncached() == 1 || left <= 0) continue;
            int count = Math.min(s.uncached(), left);
            scheduled.add(new ScheduledTokens(s, count));
            left -= count;
        }
        return grouped(scheduled);
    }

    /// The requests that have tokens in the pass, or would have had them if it had not failed.
    Set<Request> participants() {
        return Set.copyOf(participants);
    }

    /// Puts everything back as it was before [#plan].
    void undo() {
        while (!undo.isEmpty()) undo.pop().run();
    }

    /// Admits waiting sequences in their order. A page for each decoding sequence is left, which it may need
    /// soon.
    private void admit() {
        while (!waiting.isEmpty() && active.size() < settings.maxSequences()) {
            SampledSequence next = waiting.first();
            int needed = Math.ceilDiv(next.length(), Device.BLOCK);
            if (needed + active.size() > pages.free()) return;
            KeyValueCache cache = pages.open();
            if (!cache.reserve(next.length())) {
                if (active.isEmpty()) throw shortage(next);
                return;     // admitted later, into pages of a sequence that ends
            }
            next.attach(cache);
            waiting.remove(next);
            active.add(next);
            participants.add(next.request);
            undo.push(() -> {
                active.remove(next);
                next.release();
                waiting.add(next);
            });
        }
    }

    /// Finds a page for one more token, and evicts the latest sequences for it; false when it is itself the
    /// latest.
    private boolean reserve(SampledSequence s) {
        KeyValueCache cache = s.cache().orElseThrow();
        int before = cache.pages();
        while (!cache.reserve(1)) {
            if (active.size() == 1) throw shortage(s);
            SampledSequence latest = active.last();
            evict(latest);
            if (latest == s) return false;
        }
        if (cache.pages() > before) undo.push(() -> cache.shrink(before));
        return true;
    }

    private void evict(SampledSequence s) {
        KeyValueCache cache = s.cache().orElseThrow();
        KeyValueCache.Evicted evicted = cache.evict();
        s.release();
        active.remove(s);
        waiting.add(s);
        undo.push(() -> {
            waiting.remove(s);
            cache.restore(evicted);
            s.attach(cache);
            active.add(s);
        });
    }

    private RuntimeException shortage(SampledSequence s) {
        participants.add(s.request);
        require(pages.shortage().isPresent(), "a sequence of %d tokens does not fit into %d pages",
                s.length(), pages.limit());
        return pages.shortage().get();
    }

    private static List<ScheduledTokens> grouped(List<ScheduledTokens> scheduled) {
        Map<Adapter, Integer> order = new IdentityHashMap<>();
        for (ScheduledTokens next : scheduled)
            next.sequence().request.adapter.ifPresent(a -> order.putIfAbsent(a, order.size() + 1));
        return scheduled.stream().sorted(Comparator.comparing(
                next -> next.sequence().request.adapter.map(order::get).orElse(0))).toList();
    }
}
