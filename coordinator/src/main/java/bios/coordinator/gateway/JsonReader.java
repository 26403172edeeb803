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
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.LongConsumer;

/// Parses a request body strictly: UTF-8, one JSON value without trailing text, no duplicate fields, no
/// `NaN`, no unpaired surrogates, no number beyond the range of a double, limited nesting.
final class JsonReader {
    /// Fields whose arrays of numbers become primitive arrays.
    private static final Set<String> PACKED = Set.of("data", "tokens", "shape", "sparse_crow_indices",
            "sparse_col_indices");
    /// Fields that hold any JSON: all of it is built, whatever its names are.
    private static final Set<String> FREE = Set.of("user_metadata", "metadata", "messages",
            "chat_template_kwargs", "response_format", "logit_bias", "stream_options", "system");
    /// Objects whose fields have names that only the endpoint knows.
    private static final Set<String> OPEN = Set.of("loss_fn_config", "loss_fn_inputs");
    /// All other fields that requests have. A field with another name is refused by the endpoint, so its
    /// value is not built.
    private static final Set<String> KNOWN = Set.of("adam_params", "add_special_tokens",
            "allow_metadata_only", "alpha", "base_model", "best_of", "beta1", "beta2",
            "chat_template_kwargs", "chunks", "data", "data_base64", "destination_project_id",
            "dtype", "echo", "eps",
            "age_encryption_recipients", "forward_backward_input", "forward_input", "forward_only",
            "frequency_penalty", "function_call",
            "functions", "grad_clip_norm", "learning_rate", "logit_bias", "logprobs", "lora_config",
            "loss_fn", "loss_fn_config", "loss_fn_inputs", "max_completion_tokens", "max_tokens", "messages",
            "metadata", "modalities", "model", "model_id", "model_input", "model_path", "model_seq_id", "n",
            "name", "prompt_alt_tokens_k", "record_stability_info", "target_prompt_logprobs",
            "topk_sample_logprobs", "upload_id", "base_models", "checkpoint_type", "cursor",
            "last_checkpoint_uuid", "last_created_at", "limit", "owner", "owner_urns", "project_ids",
            "source_path",
            "num_samples", "optimizer", "overwrite", "part", "path", "presence_penalty", "project_id",
            "prompt", "prompt_logprobs", "rank", "request_id", "response_format", "sampling_params",
            "sampling_session_id", "sampling_session_seq_id", "sdk_version", "seed", "seq_id", "session_id",
            "shape", "skip_special_tokens", "sparse_col_indices", "sparse_crow_indices", "stop",
            "stop_sequences", "store", "stream", "stream_options", "suffix", "system", "tags",
            "target_modules", "temperature", "text", "tinker_path", "tokens", "tokens_base64",
            "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "topk_prompt_logprobs",
            "train_attn", "train_mlp", "train_unembed", "ttl_seconds",
            "type", "user", "user_metadata", "weight_decay", "weights_access_token");
    /// What a value, an object that is not empty, and one of its fields take on the heap; at most.
    private static final int VALUE_BYTES = 80;
    private static final int OBJECT_BYTES = 256;
    private static final int FIELD_BYTES = 128;
    /// What a byte of base64 takes: the bytes that it holds, in the operation and as it is stored.
    private static final int BASE64_BYTES_EACH = 2;
    private static final int CHARGE_AT = 1 << 14;

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
    ///
    /// @param heap is told the bytes that the value takes before they are taken, and throws if they are
    ///     too many
    Json read(byte[] body, LongConsumer heap) {
        return read(body, heap, false);
    }

    /// The same of a value that holds any JSON: all of it is built, whatever its names are.
    Json readFree(byte[] body, LongConsumer heap) {
        return read(body, heap, true);
    }

    private Json read(byte[] body, LongConsumer heap, boolean free) {
        checkEncoding(body);
        try (JsonParser parser = factory.createParser(body)) {
            JsonToken first = parser.nextToken();
            if (first == null)
                throw new ApiException(ErrorCode.MALFORMED_JSON, "the body is empty; expected a JSON object");
            Json value = new Reading(parser, body, heap).value(first, FieldPath.BODY, free);
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

    /// The reading of one body.
    private static final class Reading {
        private final JsonParser parser;
        private final byte[] body;
        private final LongConsumer heap;
        private long uncharged;

        Reading(JsonParser parser, byte[] body, LongConsumer heap) {
            this.parser = parser;
            this.body = body;
            this.heap = heap;
        }

        /// Counts bytes of the heap; small amounts are told together.
        private void charge(long bytes) {
            uncharged += bytes;
            if (uncharged < CHARGE_AT) return;
            heap.accept(uncharged);
            uncharged = 0;
        }

        Json value(JsonToken token, FieldPath at, boolean free) throws IOException {
            charge(VALUE_BYTES);
            return switch (token) {
                case START_OBJECT -> object(at, free);
                case START_ARRAY -> array(at, free);
                case VALUE_STRING -> string(at, free);
                case VALUE_NUMBER_INT -> number();
                case VALUE_NUMBER_FLOAT -> {
                    if (!finite()) throw tooLarge(at);
                    yield number();
                }
                case VALUE_TRUE -> new Json.Bool(true);
                case VALUE_FALSE -> new Json.Bool(false);
                case VALUE_NULL -> new Json.Null();
                case END_OBJECT, END_ARRAY, FIELD_NAME, NOT_AVAILABLE, VALUE_EMBEDDED_OBJECT ->
                    throw new IllegalStateException("no value: " + token);
            };
        }

        private Json number() throws IOException {
            String literal = parser.getText();
            charge(literal.length());
            return new Json.Num(literal);
        }

        private Json object(FieldPath at, boolean free) throws IOException {
            String name = parser.nextFieldName();
            if (name == null) return new Json.Obj(Map.of());
            charge(OBJECT_BYTES);
            Map<String, Json> fields = new LinkedHashMap<>();
            boolean open = free || at.name() != null && OPEN.contains(at.name());
            for (; name != null; name = parser.nextFieldName()) {
                charge(FIELD_BYTES + 2L * name.length());
                FieldPath here = at.field(wellFormed(name, at));
                JsonToken token = parser.nextToken();
                Json value = open || KNOWN.contains(name) ? value(token, here, free || FREE.contains(name))
                        : skipped(token);
                if (fields.put(name, value) != null) throw here.invalid("is given twice");
            }
            return new Json.Obj(fields);
        }

        /// Reads past a value.
        private Json skipped(JsonToken token) throws IOException {
            parser.skipChildren();
            return switch (token) {
                case START_OBJECT -> new Json.Skipped("an object");
                case START_ARRAY -> new Json.Skipped("an array");
                case VALUE_STRING -> new Json.Skipped("a string");
                case VALUE_NULL -> new Json.Null();
                default -> new Json.Skipped("a value");
            };
        }

        private Json array(FieldPath at, boolean free) throws IOException {
            JsonToken token = parser.nextToken();
            boolean number = token == JsonToken.VALUE_NUMBER_INT || token == JsonToken.VALUE_NUMBER_FLOAT;
            if (!free && at.name() != null && PACKED.contains(at.name())
                    && (number || token == JsonToken.END_ARRAY))
                return numbers(token, at);
            if (token == JsonToken.END_ARRAY) return new Json.Arr(List.of());
            var items = new ArrayList<Json>();
            for (; token != JsonToken.END_ARRAY; token = parser.nextToken())
                items.add(value(token, at.item(items.size()), free));
            return new Json.Arr(items);
        }

        private Json numbers(JsonToken first, FieldPath at) throws IOException {
            if (first == JsonToken.END_ARRAY) return new Json.Longs(new long[0]);
            var numbers = new NumberList(this::charge);
            for (JsonToken token = first; token != JsonToken.END_ARRAY; token = parser.nextToken()) {
                if (token != JsonToken.VALUE_NUMBER_INT
                        || parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER)
                    return doubles(token, numbers, at);
                numbers.add(parser.getLongValue());
            }
            return new Json.Longs(numbers.longs());
        }

        private Json doubles(JsonToken first, NumberList numbers, FieldPath at) throws IOException {
            int firstOther = numbers.size();
            numbers.becomeDoubles();
            for (JsonToken token = first; token != JsonToken.END_ARRAY; token = parser.nextToken()) {
                if (token != JsonToken.VALUE_NUMBER_INT && token != JsonToken.VALUE_NUMBER_FLOAT)
                    throw at.item(numbers.size()).invalid("is not a number; the items before it are numbers");
                if (!finite()) throw tooLarge(at.item(numbers.size()));
                numbers.add(Double.doubleToRawLongBits(parser.getDoubleValue()));
            }
            return new Json.Doubles(numbers.doubles(), firstOther);
        }

        private boolean finite() throws IOException {
            return !Double.isInfinite(parser.getDoubleValue());
        }

        private static Invalid tooLarge(FieldPath at) {
            return at.invalid("is too large for a number");
        }

        /// A string; one in base64 stays in the body if it can.
        private Json string(FieldPath at, boolean free) throws IOException {
            int from = start();
            if (from < 0) {
                charge((long) RequestMemory.STRING_BYTES_EACH * parser.getTextLength());
                return new Json.Str(wellFormed(parser.getText(), at));
            }
            int end = from;
            boolean plain = true;
            for (; end < body.length && body[end] != '"'; end++) {
                plain &= body[end] >= ' ' && body[end] != '\\';
                if (body[end] == '\\') end++;
            }
            if (plain && end < body.length && !free && at.name() != null && at.name().endsWith("_base64")) {
                charge((long) BASE64_BYTES_EACH * (end - from));
                return new Json.Ascii(body, from, end - from);
            }
            charge((long) RequestMemory.STRING_BYTES_EACH * (end - from));
            return new Json.Str(wellFormed(parser.getText(), at));
        }

        /// Where the text of the current string begins: the parser reads it when it is asked for. Negative if
        /// it is not there.
        private int start() {
            int at = Math.toIntExact(parser.currentLocation().getByteOffset());
            return at > 0 && at < body.length && body[at - 1] == '"' ? at : -1;
        }
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
