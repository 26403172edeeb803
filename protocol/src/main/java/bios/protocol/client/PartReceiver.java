package bios.protocol.client;

import bios.protocol.client.ClientMessage.Fetch;
import bios.protocol.client.ClientMessage.Offer;
import bios.protocol.client.ClientMessage.Part;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The large payloads that one side of a session fetches, a few parts ahead. Not thread-safe.
public final class PartReceiver {
    /// Parts that are asked for and have not arrived, of each payload: enough to fill a connection.
    private static final int AHEAD = 8;
    /// The pause before parts are asked for again grows up to 2 to the power of this.
    private static final int MOST_DOUBLED = 4;
    private final Map<Long, Transfer> transfers = new HashMap<>();

    private static final class Transfer {
        private final byte[] bytes;
        private final int parts;
        private final BitSet arrived = new BitSet();
        private int asked;
        private long heardNanos;
        private long askedAgainNanos;
        private int askedAgain;

        Transfer(int length, long nowNanos) {
            bytes = new byte[length];
            parts = Math.ceilDiv(length, ClientMessage.PART_BYTES);
            heard(nowNanos);
        }

        void heard(long nowNanos) {
            heardNanos = nowNanos;
            askedAgainNanos = nowNanos;
            askedAgain = 0;
        }

        int length(int index) {
            return Math.min(ClientMessage.PART_BYTES, bytes.length - index * ClientMessage.PART_BYTES);
        }
    }

    /// What follows from a part.
    ///
    /// @param next parts to ask for
    /// @param whole the payload, if this was its last part
    public record Progress(List<Fetch> next, Optional<byte[]> whole) {}

    /// Whether this payload is being fetched.
    public boolean has(long id) {
        return transfers.containsKey(id);
    }

    /// Begins to fetch a payload, or begins again, for whose bytes there must be memory; returns what to ask
    /// for.
    public List<Fetch> begin(Offer offer, long nowNanos) {
        var transfer = new Transfer(offer.bytes(), nowNanos);
        transfers.put(offer.id(), transfer);
        return next(offer.id(), transfer);
    }

    private static List<Fetch> next(long id, Transfer transfer) {
        var next = new ArrayList<Fetch>();
        while (transfer.asked < transfer.parts
                && transfer.asked < transfer.arrived.cardinality() + AHEAD)
            next.add(new Fetch(id, transfer.asked++));
        return next;
    }

    /// Takes a part; one that was not asked for or has the wrong size is ignored.
    public Progress add(Part part, long nowNanos) {
        Transfer transfer = transfers.get(part.id());
        int index = part.index();
        if (transfer == null || index < 0 || index >= transfer.asked || transfer.arrived.get(index)
                || part.bytes().length != transfer.length(index))
            return new Progress(List.of(), Optional.empty());
        System.arraycopy(part.bytes(), 0, transfer.bytes, index * ClientMessage.PART_BYTES,
                part.bytes().length);
        transfer.arrived.set(index);
        transfer.heard(nowNanos);
        if (transfer.arrived.cardinality() < transfer.parts)
            return new Progress(next(part.id(), transfer), Optional.empty());
        transfers.remove(part.id());
        return new Progress(List.of(), Optional.of(transfer.bytes));
    }

    /// Asks again for the parts that were lost: of payloads of which nothing has come for a pause, which
    /// doubles each time, because on a slow connection they are only late.
    public List<Fetch> askAgain(long nowNanos, long pauseNanos) {
        var again = new ArrayList<Fetch>();
        transfers.forEach((id, transfer) -> {
            if (nowNanos - transfer.askedAgainNanos <= pauseNanos << transfer.askedAgain) return;
            transfer.askedAgainNanos = nowNanos;
            transfer.askedAgain = Math.min(transfer.askedAgain + 1, MOST_DOUBLED);
            for (int i = 0; i < transfer.asked; i++)
                if (!transfer.arrived.get(i)) again.add(new Fetch(id, i));
        });
        return again;
    }

    /// Gives up payloads of which nothing has come since `nanos`; returns their ids.
    public List<Long> giveUp(long nanos) {
        List<Long> ended = transfers.entrySet().stream()
                .filter(entry -> entry.getValue().heardNanos - nanos < 0).map(Map.Entry::getKey).toList();
        ended.forEach(transfers::remove);
        return ended;
    }

    /// Forgets everything.
    public void clear() {
        transfers.clear();
    }
}
