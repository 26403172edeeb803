package bios.coordinator.gateway;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.OptionalLong;
import java.util.function.LongSupplier;

/// What was sent to a client and is not known to be read. Now and then the client is offered a payload that
/// it has not asked for: every client declines it when it has read that far. Not thread-safe.
final class UnreadBytes {
    private final long most;
    private final LongSupplier ids;
    private final RequestMemory memory;
    private final Deque<Marker> markers = new ArrayDeque<>();
    private RequestMemory.Share behind;
    private long behindBytes;
    private long bytes;

    /// An offer that the client has not declined yet.
    ///
    /// @param before bytes that were sent between the marker before it and this one
    /// @param share their memory
    private record Marker(long id, long before, RequestMemory.Share share, long sentNanos) {}

    /// @param most bytes, after which nothing more should be sent
    /// @param ids of the offers, which the client cannot guess
    /// @param memory from which the bytes are taken
    UnreadBytes(long most, LongSupplier ids, RequestMemory memory) {
        this.most = most;
        this.ids = ids;
        this.memory = memory;
        behind = memory.new Share();
    }

    /// Whether more may be sent.
    boolean hasRoom() {
        return bytes < most;
    }

    /// Takes the memory of bytes that are sent now. Throws an [ApiException] if there is none.
    void add(int more) {
        behind.take(more);
        behindBytes += more;
        bytes += more;
    }

    /// The id of a payload of no bytes to offer now: a quarter of the bytes was sent since the last offer.
    OptionalLong markerAfterAQuarter(long nowNanos) {
        return behindBytes < Math.max(1, most / 4) ? OptionalLong.empty() : marker(nowNanos);
    }

    /// The id of a payload of no bytes to offer now: the last one was offered before `nanos` or never, and it
    /// may have been lost.
    OptionalLong markerAgain(long nanos, long nowNanos) {
        boolean due = bytes > 0 && (markers.isEmpty() || markers.getLast().sentNanos() - nanos < 0);
        return due ? marker(nowNanos) : OptionalLong.empty();
    }

    private OptionalLong marker(long nowNanos) {
        long id = ids.getAsLong();
        markers.add(new Marker(id, behindBytes, behind, nowNanos));
        behind = memory.new Share();
        behindBytes = 0;
        return OptionalLong.of(id);
    }

    /// The client has declined an offer: it has read what was sent before. Ids of other offers are ignored.
    void declined(long id) {
        if (markers.stream().noneMatch(marker -> marker.id() == id)) return;
        Marker read;
        do {
            read = markers.remove();
            read.share().release();
            bytes -= read.before();
        } while (read.id() != id);
    }

    /// Whether a marker that was offered before `nanos` is not declined.
    boolean isOlderThan(long nanos) {
        return !markers.isEmpty() && markers.getFirst().sentNanos() - nanos < 0;
    }

    /// Gives all memory back.
    void release() {
        markers.forEach(marker -> marker.share().release());
        markers.clear();
        behind.release();
        behindBytes = 0;
        bytes = 0;
    }
}
