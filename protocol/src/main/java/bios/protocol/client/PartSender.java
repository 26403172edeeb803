package bios.protocol.client;

import bios.protocol.client.ClientMessage.Fetch;
import bios.protocol.client.ClientMessage.Offer;
import bios.protocol.client.ClientMessage.Part;
import bios.protocol.client.ClientMessage.Payload;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.LongConsumer;

/// The large payloads of one side of a session, until the other side has fetched them. Bounded: the oldest
/// are dropped, and are asked for again. Not thread-safe.
public final class PartSender {
    /// Parts of a payload that are sent again, because they were lost.
    private static final int MOST_AGAIN = 64;
    private final long maxBytes;
    private final LongConsumer dropped;
    private final Map<Long, Kept> kept = new LinkedHashMap<>();
    private long bytes;

    /// @param sent parts of it that were sent
    private record Kept(byte[] payload, long askedNanos, int sent) {}

    /// @param maxBytes of all payloads that are kept; one is always allowed
    /// @param dropped is told the id of each payload that is no longer kept
    public PartSender(long maxBytes, LongConsumer dropped) {
        this.maxBytes = maxBytes;
        this.dropped = dropped;
    }

    /// What is sent for a payload: the payload itself, or the offer of one that is kept from now on.
    public ClientMessage send(long id, byte[] payload, long nowNanos) {
        if (payload.length <= ClientMessage.PART_BYTES) return new Payload(id, payload);
        drop(id);
        while (!kept.isEmpty() && bytes + payload.length > maxBytes) drop(kept.keySet().iterator().next());
        kept.put(id, new Kept(payload, nowNanos, 0));
        bytes += payload.length;
        return new Offer(id, payload.length);
    }

    /// The part that is asked for; empty if the payload is not kept, or has no such part.
    public Optional<Part> part(Fetch wanted, long nowNanos) {
        Kept found = kept.get(wanted.id());
        if (found == null || wanted.index() < 0) return Optional.empty();
        long from = (long) wanted.index() * ClientMessage.PART_BYTES;
        if (from >= found.payload().length) return Optional.empty();
        // A receiver that asks again and again without reading would fill the queue of the connection.
        if (found.sent() >= Math.ceilDiv(found.payload().length, ClientMessage.PART_BYTES) + MOST_AGAIN) {
            drop(wanted.id());
            return Optional.empty();
        }
        kept.put(wanted.id(), new Kept(found.payload(), nowNanos, found.sent() + 1));
        int to = (int) Math.min(from + ClientMessage.PART_BYTES, found.payload().length);
        return Optional.of(new Part(wanted.id(), wanted.index(),
                Arrays.copyOfRange(found.payload(), (int) from, to)));
    }

    /// Drops a payload.
    public void drop(long id) {
        Kept before = kept.remove(id);
        if (before == null) return;
        bytes -= before.payload().length;
        dropped.accept(id);
    }

    /// Drops what nobody has asked for since `nanos`.
    public void dropUnaskedSince(long nanos) {
        kept.entrySet().stream().filter(entry -> entry.getValue().askedNanos() - nanos < 0)
                .map(Map.Entry::getKey).toList().forEach(this::drop);
    }

    /// Drops everything.
    public void clear() {
        kept.keySet().stream().toList().forEach(this::drop);
    }
}
