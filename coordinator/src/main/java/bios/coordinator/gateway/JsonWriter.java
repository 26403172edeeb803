package bios.coordinator.gateway;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.JsonSerializer;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.util.RawValue;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/// Writes JSON. A float is written with its exact value as a double; infinities and NaN are written as
/// `null`.
final class JsonWriter {
    private static final ObjectMapper MAPPER = new ObjectMapper().registerModule(new SimpleModule()
            .addSerializer(float[].class, new Floats()).addSerializer(Float.class, new OneFloat())
            .addSerializer(Double.class, new OneDouble()));

    private JsonWriter() {}

    static byte[] write(Object value) {
        try {
            return MAPPER.writeValueAsBytes(value);
        } catch (JsonProcessingException impossible) {
            throw new UncheckedIOException(impossible);
        }
    }

    /// A generator that writes to `out`.
    static JsonGenerator generator(OutputStream out) {
        try {
            return MAPPER.createGenerator(out);
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
    }

    /// Writes one value.
    static void write(Object value, JsonGenerator out) throws IOException {
        MAPPER.writeValue(out, value);
    }

    /// As above, indented.
    static byte[] writePretty(Object value) {
        try {
            return (MAPPER.writerWithDefaultPrettyPrinter().writeValueAsString(value) + "\n")
                    .getBytes(StandardCharsets.UTF_8);
        } catch (JsonProcessingException impossible) {
            throw new UncheckedIOException(impossible);
        }
    }

    /// JSON text that was validated when it was received.
    static RawValue raw(String json) {
        return new RawValue(json);
    }

    /// JSON text as a tree.
    static JsonNode tree(String json) {
        try {
            return MAPPER.readTree(json);
        } catch (JsonProcessingException wrong) {
            throw new IllegalStateException("stored metadata is not JSON", wrong);
        }
    }

    /// The fields of a JSON object with every value as a string, as Tinker's clients require.
    static Map<String, String> strings(String json) {
        var strings = new LinkedHashMap<String, String>();
        for (Map.Entry<String, JsonNode> field : tree(json).properties()) strings.put(field.getKey(),
                field.getValue().isTextual() ? field.getValue().textValue() : field.getValue().toString());
        return strings;
    }

    private static void write(JsonGenerator out, float value) throws IOException {
        if (Float.isFinite(value)) out.writeNumber((double) value);
        else out.writeNull();
    }

    private static final class Floats extends JsonSerializer<float[]> {
        @Override public void serialize(float[] values, JsonGenerator out, SerializerProvider provider)
                throws IOException {
            out.writeStartArray();
            for (float value : values) write(out, value);
            out.writeEndArray();
        }
    }

    private static final class OneFloat extends JsonSerializer<Float> {
        @Override public void serialize(Float value, JsonGenerator out, SerializerProvider provider)
                throws IOException {
            write(out, value);
        }
    }

    private static final class OneDouble extends JsonSerializer<Double> {
        @Override public void serialize(Double value, JsonGenerator out, SerializerProvider provider)
                throws IOException {
            if (Double.isFinite(value)) out.writeNumber(value);
            else out.writeNull();
        }
    }
}
