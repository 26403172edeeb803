package bios.protocol.stored;

import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.model.ModelName;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.annotation.JsonTypeInfo;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.deser.std.StdDeserializer;
import com.fasterxml.jackson.databind.module.SimpleModule;
import com.fasterxml.jackson.databind.ser.std.StdSerializer;
import com.fasterxml.jackson.dataformat.cbor.CBORFactory;
import com.fasterxml.jackson.datatype.jdk8.Jdk8Module;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.function.Function;

/// The CBOR mapper of stored data: records field by field, names as text, `int[]` and `float[]` as packed
/// little-endian bytes, maps in the order of their keys (equal values give equal bytes), unknown fields
/// refused.
final class StoredJson {
    static final ObjectMapper MAPPER = mapper();

    private StoredJson() {}

    private static ObjectMapper mapper() {
        var factory = CBORFactory.builder().streamReadConstraints(StreamReadConstraints.builder()
                .maxStringLength(64 << 20).maxNestingDepth(100).build()).build();
        var mapper = new ObjectMapper(factory);
        mapper.registerModule(new Jdk8Module());
        mapper.registerModule(names());
        mapper.registerModule(arrays());
        mapper.addMixIn(StoredOperation.class, OfStoredOperation.class);
        mapper.addMixIn(OperationResult.class, OfOperationResult.class);
        mapper.enable(SerializationFeature.ORDER_MAP_ENTRIES_BY_KEYS);
        mapper.enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES);
        return mapper;
    }

    private static SimpleModule names() {
        var module = new SimpleModule("names");
        text(module, RunId.class, RunId::value, RunId::new);
        text(module, ModelName.class, ModelName::value, ModelName::new);
        text(module, CheckpointName.class, CheckpointName::value, CheckpointName::new);
        return module;
    }

    private static <T> void text(SimpleModule module, Class<T> type, Function<T, String> write,
            Function<String, T> read) {
        module.addSerializer(type, writer(type, (value, out) -> out.writeString(write.apply(value))));
        module.addDeserializer(type, reader(type, in -> read.apply(in.getText())));
    }

    private static SimpleModule arrays() {
        var module = new SimpleModule("arrays");
        module.addSerializer(int[].class, writer(int[].class, (value, out) -> {
            ByteBuffer bytes = packed(4 * value.length);
            bytes.asIntBuffer().put(value);
            out.writeBinary(bytes.array());
        }));
        module.addDeserializer(int[].class, reader(int[].class, in -> {
            byte[] bytes = in.getBinaryValue();
            int[] value = new int[bytes.length / 4];
            ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer().get(value);
            return value;
        }));
        module.addSerializer(float[].class, writer(float[].class, (value, out) -> {
            ByteBuffer bytes = packed(4 * value.length);
            bytes.asFloatBuffer().put(value);
            out.writeBinary(bytes.array());
        }));
        module.addDeserializer(float[].class, reader(float[].class, in -> {
            byte[] bytes = in.getBinaryValue();
            float[] value = new float[bytes.length / 4];
            ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(value);
            return value;
        }));
        return module;
    }

    private static ByteBuffer packed(int bytes) {
        return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    private interface Write<T> {
        void to(T value, JsonGenerator out) throws IOException;
    }

    private interface Read<T> {
        T from(JsonParser in) throws IOException;
    }

    private static <T> StdSerializer<T> writer(Class<T> type, Write<T> write) {
        return new StdSerializer<>(type) {
            private static final long serialVersionUID = 1;

            @Override public void serialize(T value, JsonGenerator out, SerializerProvider provider)
                    throws IOException {
                write.to(value, out);
            }
        };
    }

    private static <T> StdDeserializer<T> reader(Class<T> type, Read<T> read) {
        return new StdDeserializer<>(type) {
            private static final long serialVersionUID = 1;

            @Override public T deserialize(JsonParser in, DeserializationContext context) throws IOException {
                return read.from(in);
            }
        };
    }

    @JsonTypeInfo(use = JsonTypeInfo.Id.NAME, property = "is")
    @JsonSubTypes({@JsonSubTypes.Type(value = StoredOperation.Inline.class, name = "inline"),
        @JsonSubTypes.Type(value = StoredOperation.InBlob.class, name = "blob"),
        @JsonSubTypes.Type(value = StoredOperation.Refused.class, name = "refused")})
    private interface OfStoredOperation {}

    @JsonTypeInfo(use = JsonTypeInfo.Id.NAME, property = "is")
    @JsonSubTypes({@JsonSubTypes.Type(value = OperationResult.Evaluated.class, name = "evaluated"),
        @JsonSubTypes.Type(value = OperationResult.EvaluatedMatrix.class, name = "evaluated-matrix"),
        @JsonSubTypes.Type(value = OperationResult.Stepped.class, name = "stepped"),
        @JsonSubTypes.Type(value = OperationResult.Saved.class, name = "saved"),
        @JsonSubTypes.Type(value = OperationResult.Loaded.class, name = "loaded")})
    private interface OfOperationResult {}
}
