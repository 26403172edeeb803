package bios.coordinator.gateway;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/// Writes the fields of one protobuf message. Arrays of numbers are written as bytes fields, packed
/// little-endian.
final class ProtoWriter {
    private final ByteArrayOutputStream out = new ByteArrayOutputStream();

    ProtoWriter varint(int field, long value) {
        tag(field, 0);
        raw(value);
        return this;
    }

    ProtoWriter fixed64(int field, double value) {
        tag(field, 1);
        out.writeBytes(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putDouble(value).array());
        return this;
    }

    ProtoWriter string(int field, String value) {
        return bytes(field, value.getBytes(StandardCharsets.UTF_8));
    }

    ProtoWriter bytes(int field, byte[] value) {
        tag(field, 2);
        raw(value.length);
        out.writeBytes(value);
        return this;
    }

    ProtoWriter ints(int field, int[] values) {
        ByteBuffer bytes = packed(4L * values.length);
        bytes.asIntBuffer().put(values);
        return bytes(field, bytes.array());
    }

    ProtoWriter longs(int field, long[] values) {
        ByteBuffer bytes = packed(8L * values.length);
        bytes.asLongBuffer().put(values);
        return bytes(field, bytes.array());
    }

    ProtoWriter floats(int field, float[] values) {
        ByteBuffer bytes = packed(4L * values.length);
        bytes.asFloatBuffer().put(values);
        return bytes(field, bytes.array());
    }

    ProtoWriter message(int field, ProtoWriter inner) {
        return bytes(field, inner.toBytes());
    }

    byte[] toBytes() {
        return out.toByteArray();
    }

    /// A buffer for packed numbers.
    static ByteBuffer packed(long bytes) {
        return ByteBuffer.allocate(Math.toIntExact(bytes)).order(ByteOrder.LITTLE_ENDIAN);
    }

    private void tag(int field, int type) {
        raw((long) field << 3 | type);
    }

    private void raw(long value) {
        long rest = value;
        for (; (rest & ~0x7fL) != 0; rest >>>= 7) out.write((int) (rest & 0x7f | 0x80));
        out.write((int) rest);
    }
}
