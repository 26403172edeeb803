package bios.coordinator.gateway;

import bios.protocol.model.ModelInfo;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/// Parses a ModelInput into token ids and checks them against the model.
final class ModelInputReader {
    private ModelInputReader() {}

    static int[] read(FieldPath at, Json json, ModelInfo model) {
        Fields fields = Fields.of(at, json);
        int[] tokens;
        if (fields.has("tokens_base64")) {
            if (fields.has("chunks")) throw at.invalid("needs one of chunks and tokens_base64, not both");
            tokens = packed(fields, model);
        } else tokens = chunks(fields, model);
        fields.requireAllRead();
        if (tokens.length == 0) throw at.invalid("is empty; at least one token is needed");
        if (tokens.length > model.contextLength())
            throw at.invalid("has " + tokens.length + " tokens; the context of " + model.name() + " is "
                    + model.contextLength());
        return tokens;
    }

    private static int[] chunks(Fields fields, ModelInfo model) {
        List<Json> chunks = fields.array("chunks");
        var parts = new ArrayList<int[]>();
        int length = 0;
        for (Json chunk : chunks) {
            int[] part = chunk(fields.at("chunks").item(parts.size()), chunk, model);
            parts.add(part);
            length += part.length;
        }
        int[] all = new int[length];
        int at = 0;
        for (int[] part : parts) {
            System.arraycopy(part, 0, all, at, part.length);
            at += part.length;
        }
        return all;
    }

    private static int[] chunk(FieldPath at, Json json, ModelInfo model) {
        Fields chunk = Fields.of(at, json);
        String type = chunk.optionalString("type").orElse("encoded_text");
        switch (type) {
            case "encoded_text" -> { }
            case "image", "image_asset_pointer", "dmel" ->
                    throw new ApiException(ErrorCode.UNSUPPORTED, chunk.at("type").toString(),
                            "'" + type + "' is not supported; this service takes text");
            default -> throw chunk.at("type").invalid("'" + type + "' is unknown; expected encoded_text");
        }
        int[] tokens = chunk.has("tokens_base64") && !chunk.has("tokens")
                ? packed(chunk, model)
                : tokens(chunk.at("tokens"), chunk.required("tokens"), model);
        chunk.requireAllRead();
        return tokens;
    }

    private static int[] packed(Fields fields, ModelInfo model) {
        return packed(fields.at("tokens_base64"), ByteBuffer.wrap(fields.base64("tokens_base64"))
                .order(ByteOrder.LITTLE_ENDIAN), model);
    }

    private static int[] packed(FieldPath at, ByteBuffer bytes, ModelInfo model) {
        if (bytes.remaining() % 4 != 0)
            throw at.invalid("holds " + bytes.remaining() + " bytes; expected 4 for each token");
        int[] tokens = new int[bytes.remaining() / 4];
        bytes.asIntBuffer().get(tokens);
        for (int i = 0; i < tokens.length; i++) checkToken(at, i, tokens[i], model);
        return tokens;
    }

    /// Token ids of `model`.
    static int[] tokens(FieldPath at, Json json, ModelInfo model) {
        if (json instanceof Json.Packed packed) return packed(at, packed.bytes(), model);
        long[] ids = TensorReader.longs(at, json);
        int[] tokens = new int[ids.length];
        for (int i = 0; i < ids.length; i++) {
            checkToken(at, i, ids[i], model);
            tokens[i] = (int) ids[i];
        }
        return tokens;
    }

    /// Refuses an id outside the vocabulary of `model`.
    static void checkToken(FieldPath at, int i, long token, ModelInfo model) {
        if (token < 0 || token >= model.vocabularySize())
            throw at.item(i).invalid(token + " is not a token id of " + model.name() + "; expected 0 to "
                    + (model.vocabularySize() - 1));
    }
}
