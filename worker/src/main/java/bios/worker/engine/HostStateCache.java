package bios.worker.engine;

import bios.protocol.checkpoint.BlobRef;
import bios.protocol.run.RunId;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/// Recovery points kept in the host's memory, off the Java heap, the newest of each run: a run that left a
/// device with memory of its own comes back without a look into the blob store. The least recently used go
/// first. Safe for any thread.
final class HostStateCache {
    private final long limit;
    private final Map<RunId, Place> places = new LinkedHashMap<>();   // least recently used first
    private long bytes;

    private record Place(BlobRef ref, Arena arena, MemorySegment memory) {}

    /// @param limit most bytes; 0 keeps nothing
    HostStateCache(long limit) {
        this.limit = limit;
    }

    /// Whether it keeps anything at all.
    boolean open() {
        return limit > 0;
    }

    /// Keeps a run's newest recovery point, if it has room for it at all.
    ///
    /// @param point the content of `ref`
    synchronized void keep(RunId run, BlobRef ref, byte[] point) {
        drop(run);
        if (point.length > limit) return;
        for (Iterator<RunId> each = places.keySet().iterator(); bytes + point.length > limit; ) {
            close(places.get(each.next()));
            each.remove();
        }
        var arena = Arena.ofShared();
        MemorySegment memory = arena.allocate(Math.max(1, point.length)).asSlice(0, point.length);
        MemorySegment.copy(point, 0, memory, ValueLayout.JAVA_BYTE, 0, point.length);
        places.put(run, new Place(ref, arena, memory));
        bytes += point.length;
    }

    /// A copy of the content of `ref`, if it is the run's newest.
    synchronized Optional<byte[]> find(RunId run, BlobRef ref) {
        Place place = places.get(run);
        if (place == null || !place.ref.equals(ref)) return Optional.empty();
        places.remove(run);
        places.put(run, place);
        return Optional.of(place.memory.toArray(ValueLayout.JAVA_BYTE));
    }

    private void drop(RunId run) {
        Place place = places.remove(run);
        if (place != null) close(place);
    }

    private void close(Place place) {
        bytes -= place.memory.byteSize();
        place.arena.close();
    }
}
