package bios.coordinator.gateway;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/// A map that forgets the entry that was used longest ago when it has too many.
final class LruMap<K, V> extends LinkedHashMap<K, V> {
    private static final long serialVersionUID = 1;
    private static final float LOAD_FACTOR = 0.75f;

    private final int most;

    private LruMap(int most) {
        super(16, LOAD_FACTOR, true);
        this.most = most;
    }

    /// An empty map of at most `most` entries. Thread-safe; whoever iterates synchronizes on it.
    static <K, V> Map<K, V> of(int most) {
        return Collections.synchronizedMap(new LruMap<>(most));
    }

    @Override protected boolean removeEldestEntry(Map.Entry<K, V> eldest) {
        return size() > most;
    }
}
