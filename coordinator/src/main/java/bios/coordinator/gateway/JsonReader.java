package bios.coordinator.gateway;

import bios.protocol.Invalid;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CoderResult;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/// Parses a request body strictly: UTF-8, one JSON value without trailing text, no duplicate fields, no
/// `NaN`, no unpaired surrogates, no number beyond the range of a double, limited nesting.
final class JsonReader {
    private static final Set<String> PACKED = Set.of("data", "tokens", "shape");
    private static final Set<String> FREE = Set.of("user_metadata", "metadata");

    private final JsonFactory factory;

    /// @param maxNesting deepest nesting of objects and arrays
    /// @param maxBytes largest body, which bounds the longest string
    JsonReader(int maxNesting, int maxBytes) {
        this.factory = JsonFactory.builder().disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
                .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
                .streamReadConstraints(StreamReadConstraints.builder().maxNestingDepth(maxNesting)
                        .maxStringLength(maxBytes).maxNumberLength(400).maxNameLength(1000).build()).build();
    }

    /// The value; throws [ApiException] or [Invalid] with the place of the error.
    Json read(byte[] body) {
        checkEncoding(body);
        try (JsonParser parser = factory.createParser(body)) {
            JsonToken first = parser.nextToken();
            if (first == null)
                throw new ApiException(ErrorCode.MALFORMED_JSON, "the body is empty; expected a JSON object");
            Json value = value(parser, first, FieldPath.BODY, false);
            if (parser.nextToken() != null)
                throw new ApiException(ErrorCode.MALFORMED_JSON,
                        "there is trailing text after the JSON value, at " + where(parser));
            return value;
        } catch (JsonProcessingException malformed) {
            throw new ApiException(ErrorCode.MALFORMED_JSON, "the body is not JSON: "
                    + malformed.getOriginalMessage()
                    + (malformed.getLocation() == null ? "" : " at line " + malformed.getLocation()
                            .getLineNr() + ", column " + malformed.getLocation().getColumnNr()));
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
    }

    private static String where(JsonParser parser) {
        var at = parser.currentTokenLocation();
        return "line " + at.getLineNr() + ", column " + at.getColumnNr();
    }

    private static void checkEncoding(byte[] body) {
        var decoder = StandardCharsets.UTF_8.newDecoder();
        var in = ByteBuffer.wrap(body);
        var out = CharBuffer.allocate(Math.clamp(body.length, 1, 1 << 13));
        try {
            for (CoderResult step = CoderResult.OVERFLOW; step.isOverflow(); out.clear()) {
                step = decoder.decode(in, out, true);
                if (step.isError()) step.throwException();
            }
        } catch (CharacterCodingException _) {
            throw new ApiException(ErrorCode.MALFORMED_JSON, "the body is not UTF-8 at byte "
                    + in.position());
        }
        // Jackson detects UTF-16 and UTF-32 by zero bytes; JSON in UTF-8 has none.
        for (int i = 0; i < Math.min(4, body.length); i++) if (body[i] == 0)
            throw new ApiException(
            ErrorCode.MALFORMED_JSON, "the body is not UTF-8: it begins with a zero byte");
    }

    private Json value(JsonParser parser, JsonToken token, FieldPath at, boolean free) throws IOException {
        return switch (token) {
            case START_OBJECT -> object(parser, at, free);
            case START_ARRAY -> array(parser, at, free);
            case VALUE_STRING -> new Json.Str(wellFormed(parser.getText(), at));
            case VALUE_NUMBER_INT -> new Json.Num(parser.getText());
            case VALUE_NUMBER_FLOAT -> {
                finite(parser, at);
                yield new Json.Num(parser.getText());
            }
            case VALUE_TRUE -> new Json.Bool(true);
            case VALUE_FALSE -> new Json.Bool(false);
            case VALUE_NULL -> new Json.Null();
            case END_OBJECT, END_ARRAY, FIELD_NAME, NOT_AVAILABLE, VALUE_EMBEDDED_OBJECT ->
                throw new IllegalStateException("no value: " + token);
        };
    }

    private Json object(JsonParser parser, FieldPath at, boolean free) throws IOException {
        Map<String, Json> fields = new LinkedHashMap<>();
        for (String name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
            FieldPath here = at.field(wellFormed(name, at));
            Json value = value(parser, parser.nextToken(), here, free || FREE.contains(name));
            if (fields.put(name, value) != null) throw here.invalid("is given twice");
        }
        return new Json.Obj(fields);
    }

    private Json array(JsonParser parser, FieldPath at, boolean free) throws IOException {
        JsonToken token = parser.nextToken();
        boolean number = token == JsonToken.VALUE_NUMBER_INT || token == JsonToken.VALUE_NUMBER_FLOAT;
        if (!free && at.name() != null && PACKED.contains(at.name())
                && (number || token == JsonToken.END_ARRAY))
            return numbers(parser, token, at);
        var items = new ArrayList<Json>();
        for (; token != JsonToken.END_ARRAY; token = parser.nextToken())
            items.add(value(parser, token, at.item(items.size()), free));
        return new Json.Arr(items);
    }

    private static Json numbers(JsonParser parser, JsonToken first, FieldPath at) throws IOException {
        long[] longs = new long[16];
        int n = 0;
        for (JsonToken token = first; token != JsonToken.END_ARRAY; token = parser.nextToken()) {
            if (token != JsonToken.VALUE_NUMBER_INT
                    || parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER)
                return doubles(parser, token, longs, n, at);
            if (n == longs.length) longs = Arrays.copyOf(longs, 2 * n);
            longs[n++] = parser.getLongValue();
        }
        return new Json.Longs(Arrays.copyOf(longs, n));
    }

    private static Json doubles(JsonParser parser, JsonToken first, long[] begun, int n, FieldPath at)
            throws IOException {
        double[] doubles = new double[Math.max(16, 2 * n)];
        for (int i = 0; i < n; i++) doubles[i] = begun[i];
        int firstOther = n;
        for (JsonToken token = first; token != JsonToken.END_ARRAY; token = parser.nextToken()) {
            if (token != JsonToken.VALUE_NUMBER_INT && token != JsonToken.VALUE_NUMBER_FLOAT)
                throw at.item(n).invalid("is not a number; the items before it are numbers");
            if (n == doubles.length) doubles = Arrays.copyOf(doubles, 2 * n);
            doubles[n] = finite(parser, at.item(n));
            n++;
        }
        return new Json.Doubles(Arrays.copyOf(doubles, n), firstOther);
    }

    private static double finite(JsonParser parser, FieldPath at) throws IOException {
        double value = parser.getDoubleValue();
        if (Double.isInfinite(value)) throw at.invalid("is too large for a number");
        return value;
    }

    private static String wellFormed(String text, FieldPath at) {
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (!Character.isSurrogate(c)) continue;
            boolean pair = Character.isHighSurrogate(c) && i + 1 < text.length()
                    && Character.isLowSurrogate(text.charAt(i + 1));
            if (!pair) throw at.invalid("contains an unpaired surrogate; send text as UTF-8");
            i++;
        }
        return text;
    }
}
