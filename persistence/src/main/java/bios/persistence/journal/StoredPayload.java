package bios.persistence.journal;

import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Optional;
import org.apache.pekko.serialization.Serialization;
import org.apache.pekko.serialization.Serializer;
import org.apache.pekko.serialization.Serializers;

/// An object, serialized by one of Pekko's serializers.
///
/// @param serializer its identifier
/// @param manifest the name of the object's type in the serializer; may be empty
record StoredPayload(int serializer, String manifest, byte[] bytes) {
    static StoredPayload of(Serialization serialization, Object value) {
        Serializer serializer = serialization.findSerializerFor(value);
        return new StoredPayload(serializer.identifier(), Serializers.manifestFor(serializer, value),
                serialization.serialize(value).get());
    }

    Object value(Serialization serialization) {
        return serialization.deserialize(bytes, serializer, manifest).get();
    }

    int size() {
        return 4 + 4 + manifest.getBytes(StandardCharsets.UTF_8).length + 4 + bytes.length;
    }

    void write(ByteBuffer into) {
        into.putInt(serializer);
        writeText(into, manifest);
        into.putInt(bytes.length).put(bytes);
    }

    static StoredPayload read(ByteBuffer from) {
        int serializer = from.getInt();
        String manifest = readText(from);
        return new StoredPayload(serializer, manifest, readBytes(from));
    }

    static int size(Optional<StoredPayload> payload) {
        return 1 + payload.map(StoredPayload::size).orElse(0);
    }

    static void write(ByteBuffer into, Optional<StoredPayload> payload) {
        into.put((byte) (payload.isPresent() ? 1 : 0));
        payload.ifPresent(p -> p.write(into));
    }

    static Optional<StoredPayload> readOptional(ByteBuffer from) {
        return from.get() == 0 ? Optional.empty() : Optional.of(read(from));
    }

    static int textSize(String text) {
        return 4 + text.getBytes(StandardCharsets.UTF_8).length;
    }

    static void writeText(ByteBuffer into, String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        into.putInt(bytes.length).put(bytes);
    }

    static String readText(ByteBuffer from) {
        return new String(readBytes(from), StandardCharsets.UTF_8);
    }

    private static byte[] readBytes(ByteBuffer from) {
        int length = from.getInt();
        if (length < 0 || length > from.remaining()) throw new BufferUnderflowException();
        byte[] bytes = new byte[length];
        from.get(bytes);
        return bytes;
    }
}
