package bios.coordinator.gateway;

import com.fasterxml.jackson.core.JsonGenerator;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Iterator;
import java.util.Map;
import java.util.NoSuchElementException;
import org.apache.pekko.util.ByteString;

/// A large JSON object as blocks of text that are made when they are asked for, so that it never exists as a
/// whole. A field whose value is an [Iterator] becomes an array; its items are written one by one.
final class JsonBlocks implements Iterator<ByteString> {
    private static final int BLOCK_BYTES = 1 << 16;

    private final Iterator<Map.Entry<String, Object>> fields;
    private final ByteArrayOutputStream written = new ByteArrayOutputStream(BLOCK_BYTES);
    private final JsonGenerator out = JsonWriter.generator(written);
    private Iterator<?> items;
    private boolean begun;
    private boolean ended;

    /// @param object the fields in their order
    JsonBlocks(Map<String, Object> object) {
        this.fields = object.entrySet().iterator();
    }

    @Override public boolean hasNext() {
        return !ended;
    }

    @Override public ByteString next() {
        if (ended) throw new NoSuchElementException();
        try {
            while (!ended && written.size() < BLOCK_BYTES) {
                step();
                out.flush();
            }
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
        ByteString block = ByteString.fromArrayUnsafe(written.toByteArray());
        written.reset();
        return block;
    }

    private void step() throws IOException {
        if (!begun) {
            out.writeStartObject();
            begun = true;
        } else if (items != null) {
            if (items.hasNext()) {
                JsonWriter.write(items.next(), out);
            } else {
                out.writeEndArray();
                items = null;
            }
        } else if (fields.hasNext()) {
            Map.Entry<String, Object> field = fields.next();
            out.writeFieldName(field.getKey());
            if (field.getValue() instanceof Iterator<?> several) {
                out.writeStartArray();
                items = several;
            } else JsonWriter.write(field.getValue(), out);
        } else {
            out.writeEndObject();
            ended = true;
        }
    }
}
