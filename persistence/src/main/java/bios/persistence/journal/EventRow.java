package bios.persistence.journal;

import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.persistence.AtomicWrite;
import org.apache.pekko.persistence.PersistentRepr;
import org.apache.pekko.persistence.journal.Tagged;
import org.apache.pekko.serialization.Serialization;
import scala.jdk.javaapi.CollectionConverters;
import scala.jdk.javaapi.OptionConverters;

/// The events of one atomic write, stored in one row. Encoding: a version (1), the number of events, then for
/// each event its timestamp, the event adapter's manifest, payload and metadata, each preceded by its length,
/// and the [Checksum] of all that (4 bytes; rows of earlier builds have none, and those builds ignore it);
/// big-endian.
///
/// @param first sequence number of the first event
/// @param writer id of the incarnation of the entity that wrote them
record EventRow(String persistenceId, long first, String writer, List<Event> events) {
    private static final byte VERSION = 1;

    /// One event of a row.
    ///
    /// @param timestamp when the entity wrote it, epoch milliseconds
    /// @param adapter the event adapter's manifest; usually empty
    record Event(long timestamp, String adapter, StoredPayload payload, Optional<StoredPayload> metadata) {}

    EventRow {
        events = List.copyOf(events);
        if (events.isEmpty() || first < 1)
            throw new IllegalArgumentException("a row has at least one event, with numbers from 1 on");
    }

    long last() {
        return first + events.size() - 1;
    }

    static EventRow of(AtomicWrite write, Serialization serialization) {
        List<PersistentRepr> all = CollectionConverters.asJava(write.payload());
        var events = new ArrayList<Event>(all.size());
        long next = write.lowestSequenceNr();
        for (PersistentRepr one : all) {
            if (one.sequenceNr() != next++)
                throw new IllegalArgumentException("the events of an atomic write of " + write.persistenceId()
                        + " do not have consecutive numbers: " + one.sequenceNr() + " instead of "
                        + (next - 1));
            // Tags are dropped: there are no queries by tag.
            Object payload = one.payload() instanceof Tagged tagged ? tagged.payload() : one.payload();
            events.add(new Event(one.timestamp(), one.manifest(), StoredPayload.of(serialization, payload),
                    OptionConverters.toJava(one.metadata())
                            .map(metadata -> StoredPayload.of(serialization, metadata))));
        }
        return new EventRow(
                write.persistenceId(), write.lowestSequenceNr(), all.getFirst().writerUuid(), events);
    }

    ByteBuffer bytes() {
        int size = 1 + 4 + 4;
        for (Event event : events)
            size = Math.addExact(size, 8 + StoredPayload.textSize(event.adapter()) + event.payload().size()
                    + StoredPayload.size(event.metadata()));
        ByteBuffer into = ByteBuffer.allocate(size).put(VERSION).putInt(events.size());
        for (Event event : events) {
            into.putLong(event.timestamp());
            StoredPayload.writeText(into, event.adapter());
            event.payload().write(into);
            StoredPayload.write(into, event.metadata());
        }
        into.putInt(Checksum.of(persistenceId, first, writer, into.slice(0, into.position())));
        return into.flip();
    }

    static EventRow read(String persistenceId, long first, String writer, ByteBuffer bytes) {
        try {
            return decode(persistenceId, first, writer, bytes);
        } catch (BufferUnderflowException | IllegalArgumentException | NegativeArraySizeException cut) {
            throw damaged(persistenceId, first, cut);
        }
    }

    private static JournalDamaged damaged(String persistenceId, long first, Throwable cause) {
        return new JournalDamaged("event " + first + " of " + persistenceId + " is damaged", cause);
    }

    private static EventRow decode(String persistenceId, long first, String writer, ByteBuffer bytes) {
        ByteBuffer from = bytes.duplicate();
        byte version = from.get();
        if (version != VERSION)
            throw new IllegalStateException(
                    "event " + first + " of " + persistenceId + " is written in version "
                    + version + " of the journal's format, this program knows " + VERSION
                            + "; run a newer Bios");
        int count = from.getInt();
        var events = new ArrayList<Event>();
        for (int i = 0; i < count; i++)
            events.add(new Event(from.getLong(), StoredPayload.readText(from), StoredPayload.read(from),
                    StoredPayload.readOptional(from)));
        int end = from.position() - bytes.position();
        if (from.hasRemaining() && from.getInt()
                != Checksum.of(persistenceId, first, writer, bytes.slice(bytes.position(), end)))
            throw damaged(persistenceId, first, null);
        return new EventRow(persistenceId, first, writer, events);
    }

    PersistentRepr event(long number, Serialization serialization) {
        Event event = events.get((int) (number - first));
        PersistentRepr one = PersistentRepr.apply(event.payload().value(serialization), number, persistenceId,
                event.adapter(), false, ActorRef.noSender(), writer).withTimestamp(event.timestamp());
        return event.metadata().map(metadata -> one.withMetadata(metadata.value(serialization))).orElse(one);
    }
}
