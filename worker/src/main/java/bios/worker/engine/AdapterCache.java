package bios.worker.engine;

import static bios.protocol.Require.require;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.worker.adapter.Adapter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The adapters for sampling that are on the device, within a limit of bytes, with the number of requests
/// that use each. The least recently used ones without users are evicted. Bookkeeping only.
final class AdapterCache {
    private final long limit;
    private final Map<Key, Cached> adapters = new LinkedHashMap<>();   // least recently used first
    private long bytes;

    /// @param limit most bytes of all adapters
    AdapterCache(long limit) {
        this.limit = limit;
    }

    /// Identity of an adapter: its bytes do not say its scale.
    record Key(ModelName model, String contentId, LoraSpec lora) {}

    private static final class Cached {
        final long bytes;
        int users = 1;
        boolean used = true;
        Optional<Adapter> adapter = Optional.empty();

        Cached(long bytes) {
            this.bytes = bytes;
        }
    }

    /// The answer to a request.
    sealed interface Answer {
        /// It is on the device.
        record Hit(Adapter adapter) implements Answer {}

        /// It is being loaded for another request.
        record Loading() implements Answer {}

        /// There is room: load it, then call [#loaded] or [#loadFailed].
        ///
        /// @param evicted adapters to be freed first
        record Load(List<Adapter> evicted) implements Answer {}

        /// No room until an adapter is released.
        record Full() implements Answer {}

        /// Larger than the limit.
        record TooLarge(long limit) implements Answer {}
    }

    /// Requests an adapter for use; unless the answer is `Full` or `TooLarge`, [#release] must follow once.
    Answer request(Key key, long size) {
        Cached cached = adapters.remove(key);
        if (cached != null) {
            adapters.put(key, cached);
            cached.users++;
            cached.used = true;
            return cached.adapter.<Answer>map(Answer.Hit::new).orElse(new Answer.Loading());
        }
        if (size > limit) return new Answer.TooLarge(limit);
        long used = adapters.values().stream().filter(a -> a.users > 0).mapToLong(a -> a.bytes).sum();
        if (used + size > limit) return new Answer.Full();
        List<Adapter> evicted = new ArrayList<>();
        adapters.values().removeIf(a -> {
            if (bytes + size <= limit || a.users > 0) return false;
            bytes -= a.bytes;
            a.adapter.ifPresent(evicted::add);
            return true;
        });
        adapters.put(key, new Cached(size));
        bytes += size;
        return new Answer.Load(evicted);
    }

    /// A requested adapter is on the device.
    void loaded(Key key, Adapter adapter) {
        adapters.get(key).adapter = Optional.of(adapter);
    }

    /// A requested adapter could not be loaded: none of its requests uses it.
    void loadFailed(Key key) {
        bytes -= adapters.remove(key).bytes;
    }

    /// A request does not use the adapter any more.
    void release(Key key) {
        Cached cached = adapters.get(key);
        require(cached != null && cached.users > 0, "an adapter was released twice");
        cached.users--;
        cached.used = true;
    }

    /// Removes the adapters that nothing has used since the last call; they are to be freed.
    List<Adapter> removeUnused() {
        List<Adapter> unused = new ArrayList<>();
        adapters.values().removeIf(a -> {
            boolean keep = a.used || a.users > 0 || a.adapter.isEmpty();
            a.used = false;
            if (keep) return false;
            bytes -= a.bytes;
            unused.add(a.adapter.get());
            return true;
        });
        return unused;
    }

    /// Bytes of all adapters, with those that are being loaded.
    long bytes() {
        return bytes;
    }
}
