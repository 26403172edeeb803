package bios.coordinator.gateway;

import com.fasterxml.jackson.core.io.JsonStringEncoder;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

/// A parsed JSON value. Arrays of numbers in the fields `tokens`, `data` and `shape` are primitive arrays.
sealed interface Json {
    /// @param fields in the order of the text
    record Obj(Map<String, Json> fields) implements Json {}

    record Arr(List<Json> items) implements Json {}

    record Str(String value) implements Json {}

    /// @param literal text of the number
    record Num(String literal) implements Json {
        /// Whether the text has neither fraction nor exponent.
        boolean integral() {
            return literal.chars().noneMatch(c -> c == '.' || c == 'e' || c == 'E');
        }
    }

    record Bool(boolean value) implements Json {}

    record Null() implements Json {}

    /// An array of integers that fit 64 bits.
    record Longs(long[] values) implements Json {}

    /// An array of numbers.
    ///
    /// @param firstOther index of the first value that is not a 64-bit integer
    record Doubles(double[] values, int firstOther) implements Json {}

    /// A string of plain ASCII without escapes in a field that holds base64: a part of the body itself.
    record Ascii(byte[] body, int from, int length) implements Json {
        String text() {
            return new String(body, from, length, StandardCharsets.US_ASCII);
        }
    }

    /// An array of numbers as the packed bytes of a protobuf body: a part of the body itself.
    record Packed(byte[] body, int from, int length) implements Json {
        /// The bytes, little-endian.
        ByteBuffer bytes() {
            return ByteBuffer.wrap(body, from, length).slice().order(ByteOrder.LITTLE_ENDIAN);
        }

        /// A copy of the bytes.
        byte[] copy() {
            return Arrays.copyOfRange(body, from, from + length);
        }
    }

    /// The value of a field that no request has: it was read past and not built.
    ///
    /// @param kind its JSON type, for messages
    record Skipped(String kind) implements Json {}

    /// The JSON type, for messages.
    default String kind() {
        return switch (this) {
            case Obj _ -> "an object";
            case Arr _, Longs _, Doubles _, Packed _ -> "an array";
            case Str _, Ascii _ -> "a string";
            case Num _ -> "a number";
            case Bool _ -> "a boolean";
            case Null _ -> "null";
            case Skipped(var kind) -> kind;
        };
    }

    /// Writes it without white space; numbers keep their text.
    default void writeTo(StringBuilder out) {
        switch (this) {
            case Obj(var fields) -> {
                out.append('{');
                for (Iterator<Map.Entry<String, Json>> i = fields.entrySet().iterator(); i.hasNext();) {
                    Map.Entry<String, Json> field = i.next();
                    quote(field.getKey(), out);
                    out.append(':');
                    field.getValue().writeTo(out);
                    if (i.hasNext()) out.append(',');
                }
                out.append('}');
            }
            case Arr(var items) -> {
                out.append('[');
                for (int i = 0; i < items.size(); i++) {
                    if (i > 0) out.append(',');
                    items.get(i).writeTo(out);
                }
                out.append(']');
            }
            case Str(var value) -> quote(value, out);
            case Num(var literal) -> out.append(literal);
            case Bool(var value) -> out.append(value);
            case Null _ -> out.append("null");
            case Ascii ascii -> quote(ascii.text(), out);
            case Packed _ -> throw new IllegalStateException("packed bytes have no text");
            case Skipped _ -> throw new IllegalStateException("a skipped value has no text");
            case Longs(var values) -> out.append(Arrays.toString(values).replace(" ", ""));
            case Doubles(var values, _) -> out.append(Arrays.toString(values).replace(" ", ""));
        }
    }

    private static void quote(String value, StringBuilder out) {
        out.append('"');
        JsonStringEncoder.getInstance().quoteAsString(value, out);
        out.append('"');
    }
}
