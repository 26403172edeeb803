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

/// Which adapters for sampling are on the device, and which go when others need their room: the least
/// recently used of those that nobody uses. Bookkeeping only: who asks fetches, places and frees.
final class AdapterCache {
    private final long limit;
    private final Map<Key, Place> places = new LinkedHashMap<>();   // least recently used first
    private long bytes;

    /// @param limit most bytes of all adapters
    AdapterCache(long limit) {
        this.limit = limit;
    }

    /// What an adapter is: its bytes do not say its scale.
    record Key(ModelName model, String contentId, LoraSpec lora) {}

    private static final class Place {
        final long bytes;
        int users = 1;
        Optional<Adapter> adapter = Optional.empty();

        Place(long bytes) {
            this.bytes = bytes;
        }
    }

    /// What becomes of a wish.
    sealed interface Answer {
        /// It is there.
        record Here(Adapter adapter) implements Answer {}

        /// Somebody fetches it already.
        record Coming() implements Answer {}

        /// Room was made: fetch it, then say [#arrived] or [#lost].
        ///
        /// @param freed adapters to be freed before
        record Fetch(List<Adapter> freed) implements Answer {}

        /// No room until something is released.
        record Full() implements Answer {}

        /// Larger than all the room there is.
        record TooLarge(long limit) implements Answer {}
    }

    /// Asks for an adapter to use; unless the answer is `Full` or `TooLarge`, [#release] must follow once.
    Answer want(Key key, long size) {
        Place place = places.remove(key);
        if (place != null) {
            places.put(key, place);
            place.users++;
            return place.adapter.<Answer>map(Answer.Here::new).orElse(new Answer.Coming());
        }
        if (size > limit) return new Answer.TooLarge(limit);
        long used = places.values().stream().filter(p -> p.users > 0).mapToLong(p -> p.bytes).sum();
        if (used + size > limit) return new Answer.Full();
        List<Adapter> freed = new ArrayList<>();
        places.values().removeIf(p -> {
            if (bytes + size <= limit || p.users > 0) return false;
            bytes -= p.bytes;
            p.adapter.ifPresent(freed::add);
            return true;
        });
        places.put(key, new Place(size));
        bytes += size;
        return new Answer.Fetch(freed);
    }

    /// A fetched adapter is on the device.
    void arrived(Key key, Adapter adapter) {
        places.get(key).adapter = Optional.of(adapter);
    }

    /// A wanted adapter could not be fetched: nobody has it.
    void lost(Key key) {
        bytes -= places.remove(key).bytes;
    }

    /// One who wanted it is done.
    void release(Key key) {
        Place place = places.get(key);
        require(place != null && place.users > 0, "an adapter was released twice");
        place.users--;
    }
}
