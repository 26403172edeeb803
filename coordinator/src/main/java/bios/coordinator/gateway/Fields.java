package bios.coordinator.gateway;

import bios.protocol.Invalid;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Function;
import java.util.function.Supplier;

/// The fields of a JSON object. Each method reads one field; [#requireAllRead] refuses the fields that were
/// not read.
/// `null` is treated as absent. Every error contains the full path of the field.
final class Fields {
    private static final BigInteger LONG_MIN = BigInteger.valueOf(Long.MIN_VALUE);
    private static final BigInteger UNSIGNED_END = BigInteger.ONE.shiftLeft(64);

    private final FieldPath at;
    private final Map<String, Json> fields;
    private final Set<String> readNames = new HashSet<>();

    private Fields(FieldPath at, Map<String, Json> fields) {
        this.at = at;
        this.fields = fields;
    }

    /// The fields of `json`, which must be an object.
    static Fields of(FieldPath at, Json json) {
        if (json instanceof Json.Obj(var fields)) return new Fields(at, fields);
        throw at.invalid("is " + json.kind() + "; expected an object");
    }

    /// The fields of a request; `type` is ignored.
    static Fields ofRequest(Json body) {
        Fields request = of(FieldPath.BODY, body);
        request.optionalString("type");
        return request;
    }

    FieldPath at(String name) {
        return at.field(name);
    }

    FieldPath at() {
        return at;
    }

    /// All names in the object that have a value; they count as read.
    List<String> names() {
        return fields.keySet().stream().filter(this::has).toList();
    }

    /// Whether the field has a value.
    boolean has(String name) {
        return optional(name).isPresent();
    }

    Optional<Json> optional(String name) {
        readNames.add(name);
        return Optional.ofNullable(fields.get(name)).filter(value -> !(value instanceof Json.Null));
    }

    Json required(String name) {
        return optional(name).orElseThrow(() -> at(name).invalid("is missing"));
    }

    private static <T> Function<Json,
            T> reading(FieldPath at, String expected, Function<Json, Optional<T>> read) {
        return json -> read.apply(json)
                .orElseThrow(() -> at.invalid("is " + json.kind() + "; expected " + expected));
    }

    private Function<Json, String> string(FieldPath place) {
        return reading(place, "a string",
                json -> switch (json) {
                    case Json.Str(var text) -> Optional.of(text);
                    case Json.Ascii ascii -> Optional.of(ascii.text());
                    case Json.Obj _, Json.Arr _, Json.Num _, Json.Bool _, Json.Null _, Json.Longs _,
                            Json.Doubles _, Json.Packed _, Json.Skipped _ -> Optional.empty();
                });
    }

    /// The bytes of a string in base64.
    byte[] base64(String name) {
        return required(name) instanceof Json.Ascii(var body, int from, int length)
                ? decode(at(name), () -> base64(ByteBuffer.wrap(body, from, length)))
                : decode(at(name), () -> Base64.getDecoder().decode(string(name)));
    }

    private static byte[] base64(ByteBuffer text) {
        ByteBuffer bytes = Base64.getDecoder().decode(text);
        return bytes.remaining() == bytes.array().length ? bytes.array()
                : Arrays.copyOf(bytes.array(), bytes.remaining());
    }

    private static byte[] decode(FieldPath place, Supplier<byte[]> decoded) {
        try {
            return decoded.get();
        } catch (IllegalArgumentException wrong) {
            throw place.invalid("is not base64: " + wrong.getMessage());
        }
    }

    String string(String name) {
        return string(at(name)).apply(required(name));
    }

    Optional<String> optionalString(String name) {
        return optional(name).map(string(at(name)));
    }

    /// A string that is one of these.
    Optional<String> optionalOneOf(String name, List<String> values) {
        Optional<String> given = optionalString(name);
        given.filter(text -> !values.contains(text)).ifPresent(text -> {
            throw at(name).invalid("'" + text + "' is unknown; expected " + String.join(" or ", values));
        });
        return given;
    }

    boolean bool(String name, boolean defaultValue) {
        return optional(name).map(reading(at(name), "true or false",
                json -> json instanceof Json.Bool(var b) ? Optional.of(b) : Optional.<Boolean>empty()))
                .orElse(defaultValue);
    }

    private static BigInteger integer(FieldPath at, Json json) {
        if (json instanceof Json.Num number && number.integral()) return new BigInteger(number.literal());
        throw at.invalid("is " + (json instanceof Json.Num(var literal) ? literal : json.kind())
                + "; expected an integer");
    }

    private long integer(FieldPath place, Json json, long min, long max) {
        BigInteger value = integer(place, json);
        if (value.compareTo(BigInteger.valueOf(min)) < 0 || value.compareTo(BigInteger.valueOf(max)) > 0)
            throw place.invalid(value + " is out of range; expected an integer from " + min + " to "
                    + max);
        return value.longValueExact();
    }

    long integer(String name, long min, long max) {
        return integer(at(name), required(name), min, max);
    }

    Optional<Long> optionalInteger(String name, long min, long max) {
        return optional(name).map(json -> integer(at(name), json, min, max));
    }

    /// An integer of 64 bits, signed or unsigned, as the same bits.
    Optional<Long> optionalBits(String name) {
        return optional(name).map(json -> {
            BigInteger value = integer(at(name), json);
            if (value.compareTo(LONG_MIN) < 0 || value.compareTo(UNSIGNED_END) >= 0)
                throw at(name).invalid(value + " does not fit 64 bits");
            return value.longValue();
        });
    }

    /// A number that computation uses; an [Invalid] if fp32, in which it is done, has none for it.
    double number(String name, double defaultValue) {
        return optional(name).map(json -> number(at(name), json)).orElse(defaultValue);
    }

    static double number(FieldPath at, Json json) {
        if (!(json instanceof Json.Num(var literal)))
            throw at.invalid("is " + json.kind() + "; expected a number");
        double value = Double.parseDouble(literal);
        if (!Float.isFinite((float) value))
            throw at.invalid("is not finite in fp32; expected a number from " + -Float.MAX_VALUE + " to "
                    + Float.MAX_VALUE);
        return value;
    }

    Fields object(String name) {
        return of(at(name), required(name));
    }

    Optional<Fields> optionalObject(String name) {
        return optional(name).map(json -> of(at(name), json));
    }

    /// The items of an array that holds anything but packed numbers.
    List<Json> array(String name) {
        return items(at(name), required(name));
    }

    static List<Json> items(FieldPath at, Json json) {
        return switch (json) {
            case Json.Arr(var items) -> items;
            case Json.Longs(var values) when values.length == 0 -> List.of();
            case Json.Longs _, Json.Doubles _ -> throw at.item(0).invalid("is a number; expected an object");
            case Json.Obj _, Json.Str _, Json.Ascii _, Json.Num _, Json.Bool _, Json.Null _, Json.Packed _,
                    Json.Skipped _ -> throw at.invalid("is " + json.kind() + "; expected an array");
        };
    }

    Optional<List<String>> optionalStrings(String name) {
        return optional(name).map(json -> {
            var strings = new ArrayList<String>();
            for (Json item : items(at(name), json))
                strings.add(string(at(name).item(strings.size())).apply(item));
            return List.copyOf(strings);
        });
    }

    /// A JSON object with arbitrary fields, as text without white space.
    Optional<String> optionalJsonText(String name, int maxBytes) {
        return optional(name).map(json -> {
            if (!(json instanceof Json.Obj))
                throw at(name).invalid("is " + json.kind() + "; expected an object");
            var text = new StringBuilder();
            json.writeTo(text);
            if (text.length() > maxBytes)
                throw at(name).invalid("has " + text.length() + " characters; at most " + maxBytes);
            return text.toString();
        });
    }

    /// Refuses the fields that were not read and have a value.
    void requireAllRead() {
        fields.forEach((name, value) -> {
            if (!readNames.contains(name) && !(value instanceof Json.Null))
                throw at(name).invalid("is not a field of this object; it has " + new TreeSet<>(readNames));
        });
    }

    /// Runs `read`; its errors are reported at `place`.
    static <T> T reportAt(FieldPath place, Supplier<T> read) {
        try {
            return read.get();
        } catch (Invalid invalid) {
            throw place.invalid(messageWithoutField(invalid));
        }
    }

    /// Runs `read`; its errors are reported at the field that they name, below `place`.
    static <T> T reportBelow(FieldPath place, Supplier<T> read) {
        try {
            return read.get();
        } catch (Invalid invalid) {
            throw new Invalid(place + "." + invalid.field(), messageWithoutField(invalid));
        }
    }

    private static String messageWithoutField(Invalid invalid) {
        String prefix = invalid.field() + ": ";
        return invalid.getMessage().startsWith(prefix)
                ? invalid.getMessage().substring(prefix.length()) : invalid.getMessage();
    }
}
