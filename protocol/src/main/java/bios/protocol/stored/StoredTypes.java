package bios.protocol.stored;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// The types of one store, written as CBOR and identified by their manifest.
public final class StoredTypes {
    private final Map<String, StoredType<?>> byName = new HashMap<>();
    private final Map<Class<?>, StoredType<?>> byClass = new HashMap<>();

    /// Names and classes of the types must differ.
    public StoredTypes(List<StoredType<?>> types) {
        for (StoredType<?> type : types) {
            boolean taken = byName.put(type.name(), type) != null | byClass.put(type.type(), type) != null;
            if (taken) throw new IllegalArgumentException("stored type " + type.name() + " is given twice");
        }
    }

    /// The manifest of `value`.
    public String manifest(Object value) {
        return typeOf(value).manifest();
    }

    /// Encodes `value` in CBOR; equal values give equal bytes.
    public byte[] write(Object value) {
        typeOf(value);
        try {
            return StoredJson.MAPPER.writeValueAsBytes(value);
        } catch (IOException failed) {
            throw new UncheckedIOException("cannot encode " + value.getClass().getName(), failed);
        }
    }

    /// Encodes `value` with its manifest: the manifest, a line feed, then CBOR.
    public byte[] writeNamed(Object value) {
        byte[] head = (manifest(value) + "\n").getBytes(StandardCharsets.US_ASCII);
        byte[] body = write(value);
        byte[] all = Arrays.copyOf(head, head.length + body.length);
        System.arraycopy(body, 0, all, head.length, body.length);
        return all;
    }

    /// Reads what [#writeNamed] wrote, as [#read] does.
    ///
    /// @param name the expected type
    public Object readNamed(String name, byte[] bytes) {
        int end = 0;
        while (end < bytes.length && bytes[end] != '\n') end++;
        String manifest = new String(bytes, 0, end, StandardCharsets.US_ASCII);
        if (!manifest.startsWith(name + "/") || end == bytes.length)
            throw new UnreadableRecord("what should be a stored " + name + " does not begin with " + name
                    + "/", null);
        return read(manifest, Arrays.copyOfRange(bytes, end + 1, bytes.length));
    }

    /// Reads bytes of any version up to the current one; [UnreadableRecord] says what is wrong otherwise.
    public Object read(String manifest, byte[] bytes) {
        int slash = manifest.lastIndexOf('/');
        StoredType<?> type = slash < 0 ? null : byName.get(manifest.substring(0, slash));
        if (type == null) throw new UnreadableRecord("'" + manifest
                + "' is not a stored type; was it written by a newer Bios?", null);
        return read(type, version(manifest, slash), bytes);
    }

    private static int version(String manifest, int slash) {
        try {
            return Integer.parseInt(manifest.substring(slash + 1));
        } catch (NumberFormatException wrong) {
            throw new UnreadableRecord("'" + manifest + "' has no version", wrong);
        }
    }

    private static <T> T read(StoredType<T> type, int version, byte[] bytes) {
        if (version > type.version())
            throw new UnreadableRecord(type.name() + "/" + version
                    + " was written by a newer Bios; this one reads up to version " + type.version(), null);
        try {
            if (version == type.version()) return StoredJson.MAPPER.readValue(bytes, type.type());
            var old = (ObjectNode) StoredJson.MAPPER.readTree(bytes);
            return StoredJson.MAPPER.treeToValue(type.migration().upgrade(version, old), type.type());
        } catch (IOException | ClassCastException | IllegalArgumentException wrong) {
            throw new UnreadableRecord("a stored " + type.name() + "/" + version + " cannot be read: "
                    + wrong.getMessage(), wrong);
        }
    }

    private StoredType<?> typeOf(Object value) {
        StoredType<?> type = byClass.get(value.getClass());
        if (type == null)
            throw new IllegalArgumentException(value.getClass().getName() + " is not a stored type");
        return type;
    }
}
