package bios.persistence.journal;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import java.util.zip.CRC32C;

/// The CRC-32C of a stored event or snapshot, over its key and its contents: a row that was damaged, or that
/// took the place of another one, does not match. Rows of earlier builds have none.
final class Checksum {
    private final CRC32C crc = new CRC32C();
    private final ByteBuffer number = ByteBuffer.allocate(8);

    /// The checksum of an event.
    static long of(String persistenceId, long number, String writer, EventRow.Event event) {
        return new Checksum().add(persistenceId).add(number).add(writer).add(event.timestamp())
                .add(event.adapter()).add(event.payload()).add(event.metadata()).value();
    }

    /// The checksum of a snapshot.
    ///
    /// @param created when it was taken, epoch milliseconds
    static long of(String persistenceId, long number, long created, StoredPayload payload,
            Optional<StoredPayload> metadata) {
        return new Checksum().add(persistenceId).add(number).add(created).add(payload).add(metadata).value();
    }

    /// The checksum of a row of Cassandra: its key and its bytes.
    static int of(String persistenceId, long number, String writer, ByteBuffer bytes) {
        var checksum = new Checksum().add(persistenceId).add(number).add(writer);
        checksum.crc.update(bytes.duplicate());
        return (int) checksum.value();
    }

    private Checksum add(long value) {
        crc.update(number.clear().putLong(value).flip());
        return this;
    }

    private Checksum add(String text) {
        return add(text.getBytes(StandardCharsets.UTF_8));
    }

    private Checksum add(byte[] bytes) {
        add(bytes.length);
        crc.update(bytes);
        return this;
    }

    private Checksum add(StoredPayload payload) {
        return add(payload.serializer()).add(payload.manifest()).add(payload.bytes());
    }

    private Checksum add(Optional<StoredPayload> payload) {
        return payload.map(this::add).orElse(this);
    }

    private long value() {
        return crc.getValue();
    }
}
