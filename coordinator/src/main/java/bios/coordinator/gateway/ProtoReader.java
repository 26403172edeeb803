package bios.coordinator.gateway;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;

/// Reads the fields of one protobuf message in place: no byte is copied.
/// [Format](https://protobuf.dev/programming-guides/encoding/); groups, which proto3 does not have, are
/// refused.
final class ProtoReader {
    private static final int VARINT = 0;
    private static final int FIXED64 = 1;
    private static final int LENGTH = 2;
    private static final int FIXED32 = 5;

    private final byte[] body;
    private final int end;
    private int at;
    private int field;
    private int type;

    ProtoReader(byte[] body) {
        this(body, 0, body.length);
    }

    private ProtoReader(byte[] body, int from, int end) {
        this.body = body;
        this.at = from;
        this.end = end;
    }

    /// Moves to the next field, whose value must then be read or skipped; false at the end of the message.
    boolean next() {
        if (at == end) return false;
        long tag = readVarint();
        type = (int) (tag & 7);
        if (tag >>> 3 == 0 || tag >>> 3 > 0x1fff_ffff) throw malformed("a field has no valid number");
        field = (int) (tag >>> 3);
        return true;
    }

    /// The number of the current field.
    int field() {
        return field;
    }

    /// An integer, a boolean or an enum.
    long varint() {
        expect(VARINT);
        return readVarint();
    }

    double fixed64() {
        expect(FIXED64);
        require(8);
        double value = ByteBuffer.wrap(body, at, 8).order(ByteOrder.LITTLE_ENDIAN).getDouble();
        at += 8;
        return value;
    }

    /// A message inside this one.
    ProtoReader message() {
        Json.Packed inner = bytes();
        return new ProtoReader(body, inner.from(), inner.from() + inner.length());
    }

    Json.Packed bytes() {
        expect(LENGTH);
        long length = readVarint();
        require(length);
        var bytes = new Json.Packed(body, at, (int) length);
        at += (int) length;
        return bytes;
    }

    String string() {
        Json.Packed text = bytes();
        try {
            return StandardCharsets.UTF_8.newDecoder()
                    .decode(ByteBuffer.wrap(body, text.from(), text.length())).toString();
        } catch (CharacterCodingException _) {
            throw malformed("a string is not UTF-8");
        }
    }

    /// Whether the current field holds several integers in one piece, instead of one.
    boolean packed() {
        return type == LENGTH;
    }

    /// One integer of a packed field; only for the reader of [#message] of that field.
    long element() {
        return readVarint();
    }

    /// Whether there is more to read.
    boolean hasMore() {
        return at < end;
    }

    /// Reads past the value of the current field.
    void skip() {
        switch (type) {
            case VARINT -> readVarint();
            case FIXED64 -> advance(8);
            case LENGTH -> bytes();
            case FIXED32 -> advance(4);
            default -> throw malformed("a field has the unknown type " + type);
        }
    }

    private void advance(int bytes) {
        require(bytes);
        at += bytes;
    }

    private void expect(int wanted) {
        if (type != wanted) throw malformed("field " + field + " has another type");
    }

    private long readVarint() {
        long value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            require(1);
            byte next = body[at++];
            value |= (long) (next & 0x7f) << shift;
            if (next >= 0) return value;
        }
        throw malformed("an integer has more than 64 bits");
    }

    private void require(long bytes) {
        if (bytes < 0 || bytes > end - at) throw malformed("it ends within a field");
    }

    private ApiException malformed(String what) {
        return new ApiException(ErrorCode.MALFORMED_BODY,
                "the body is not a protobuf message of this call: " + what + ", at byte " + at);
    }
}
