package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.LongConsumer;

/// Reads the one request that Tinker's clients send as protobuf, `ForwardBackwardRequest`, into the form that
/// the same request has in JSON; its arrays stay in the body as [Json.Packed]. The numbers of the fields are
/// documented in docs/reference/http.md. Fields with other numbers are skipped.
final class ProtoBatch {
    private static final List<String> DTYPES =
            List.of("unspecified", "float32", "int64", "int32", "bfloat16");
    /// What a message takes on the heap, and one of its fields; at most.
    private static final int MESSAGE_BYTES = 384;
    private static final int FIELD_BYTES = 256;

    private final LongConsumer heap;

    private ProtoBatch(LongConsumer heap) {
        this.heap = heap;
    }

    /// The request; throws an [ApiException] if the body is malformed.
    ///
    /// @param heap is told the bytes that the request takes before they are taken, and throws if they are
    ///     too many
    static Json read(byte[] body, LongConsumer heap) {
        return new ProtoBatch(heap).request(new ProtoReader(body));
    }

    private Json request(ProtoReader in) {
        Map<String, Json> request = message();
        Map<String, Json> input = message();
        Map<String, Json> config = message();
        var data = new ArrayList<Json>();
        while (in.next()) {
            heap.accept(FIELD_BYTES);
            switch (in.field()) {
                case 1 -> request.put("model_id", string(in));
                case 2 -> request.put("seq_id", new Json.Num(Integer.toString((int) in.varint())));
                case 3 -> data.add(datum(in.message()));
                case 4 -> input.put("loss_fn", string(in));
                case 5 -> entry(in.message(), config, value ->
                        new Json.Num(Double.toString(value.fixed64())), new Json.Num("0.0"));
                case 6 -> request.put("forward_only", new Json.Bool(in.varint() != 0));
                case 7 -> entry(in.message(), config, value -> setting(value.message()), new Json.Null());
                default -> in.skip();
            }
        }
        input.put("data", new Json.Arr(data));
        if (!config.isEmpty()) input.put("loss_fn_config", new Json.Obj(config));
        request.put("forward_backward_input", new Json.Obj(input));
        return new Json.Obj(request);
    }

    private interface ValueReader {
        Json read(ProtoReader in);
    }

    /// One entry of a map.
    ///
    /// @param absent the value of an entry without one
    private void entry(ProtoReader in, Map<String, Json> map, ValueReader reader, Json absent) {
        String name = "";
        Json value = absent;
        while (in.next()) {
            switch (in.field()) {
                case 1 -> name = ((Json.Str) string(in)).value();
                case 2 -> value = reader.read(in);
                default -> in.skip();
            }
        }
        map.put(name, value);
    }

    /// A setting of the loss as newer clients send it, beside the same as a plain number: a number or a text,
    /// which no loss takes.
    private Json setting(ProtoReader in) {
        Json setting = new Json.Null();
        while (in.next()) {
            switch (in.field()) {
                case 1 -> setting = new Json.Num(Double.toString(in.fixed64()));
                case 2 -> setting = string(in);
                default -> in.skip();
            }
        }
        return setting;
    }

    private Json datum(ProtoReader in) {
        var chunks = new ArrayList<Json>();
        Map<String, Json> inputs = message();
        while (in.next()) {
            heap.accept(FIELD_BYTES);
            switch (in.field()) {
                case 1 -> chunks.add(chunk(in.message()));
                case 2 -> entry(in.message(), inputs, value -> tensor(value.message()),
                        new Json.Obj(Map.of()));
                default -> in.skip();
            }
        }
        return object("model_input", object("chunks", new Json.Arr(chunks)), "loss_fn_inputs",
                new Json.Obj(inputs));
    }

    private Json chunk(ProtoReader in) {
        Json chunk = object("type", new Json.Str("none"));
        while (in.next()) {
            switch (in.field()) {
                case 1 -> chunk = text(in.message());
                case 2 -> chunk = unsupported(in, "image");
                case 3 -> chunk = unsupported(in, "dmel");
                default -> in.skip();
            }
        }
        return chunk;
    }

    private Json unsupported(ProtoReader in, String type) {
        in.skip();
        return object("type", new Json.Str(type));
    }

    private Json text(ProtoReader in) {
        Json tokens = new Json.Packed(new byte[0], 0, 0);
        while (in.next()) {
            if (in.field() == 1) tokens = array(in);
            else in.skip();
        }
        return object("type", new Json.Str("encoded_text"), "tokens", tokens);
    }

    private Json tensor(ProtoReader in) {
        Map<String, Json> tensor = message();
        tensor.put("dtype", new Json.Str(DTYPES.getFirst()));
        var shape = new NumberList(heap);
        while (in.next()) {
            switch (in.field()) {
                case 1 -> tensor.put("data", array(in));
                case 2 -> sparse(in.message(), tensor);
                case 3 -> tensor.put("dtype", new Json.Str(dtype(in.varint())));
                case 4 -> extents(in, shape);
                default -> in.skip();
            }
        }
        if (!tensor.containsKey("data")) tensor.put("data", new Json.Packed(new byte[0], 0, 0));
        if (shape.size() > 0) tensor.put("shape", new Json.Longs(shape.longs()));
        return new Json.Obj(tensor);
    }

    private static String dtype(long number) {
        return number >= 0 && number < DTYPES.size() ? DTYPES.get((int) number) : "number " + number;
    }

    private static void extents(ProtoReader in, NumberList shape) {
        if (!in.packed()) {
            shape.add(in.varint());
            return;
        }
        ProtoReader all = in.message();
        while (all.hasMore()) shape.add(all.element());
    }

    private void sparse(ProtoReader in, Map<String, Json> tensor) {
        for (String name : List.of("data", "sparse_crow_indices", "sparse_col_indices"))
            tensor.put(name, new Json.Packed(new byte[0], 0, 0));
        while (in.next()) {
            switch (in.field()) {
                case 1 -> tensor.put("data", array(in));
                case 2 -> tensor.put("sparse_crow_indices", array(in));
                case 3 -> tensor.put("sparse_col_indices", array(in));
                default -> in.skip();
            }
        }
    }

    private Json array(ProtoReader in) {
        Json.Packed bytes = in.bytes();
        heap.accept((long) RequestMemory.TENSOR_BYTES_EACH * bytes.length());
        return bytes;
    }

    private Json string(ProtoReader in) {
        String text = in.string();
        heap.accept((long) RequestMemory.STRING_BYTES_EACH * text.length());
        return new Json.Str(text);
    }

    private Map<String, Json> message() {
        heap.accept(MESSAGE_BYTES);
        return new LinkedHashMap<>();
    }

    private Json object(Object... namesAndValues) {
        Map<String, Json> fields = message();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            heap.accept(FIELD_BYTES);
            fields.put((String) namesAndValues[i], (Json) namesAndValues[i + 1]);
        }
        return new Json.Obj(fields);
    }
}
