package bios.worker.load;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/// Tokens that stand in `added_tokens_decoder` of tokenizer_config.json and not in tokenizer.json. They are
/// added in the order of their ids, as transformers 5 does; without that they would be split into pieces.
final class AddedTokens {
    private static final String CONFIG = "tokenizer_config.json";
    private static final String DECODER = "added_tokens_decoder";
    private static final List<String> FLAGS =
            List.of("single_word", "lstrip", "rstrip", "normalized", "special");

    private AddedTokens() {}

    /// The ids of `added_tokens_decoder` by content; empty without such a file.
    static Map<String, Integer> of(Path folder) {
        Map<String, Integer> tokens = new LinkedHashMap<>();
        for (Map.Entry<String, JsonNode> token : decoder(folder))
            tokens.put(content(token), Integer.valueOf(token.getKey()));
        return tokens;
    }

    /// The bytes of tokenizer.json with the missing tokens; the file's own where none is missing.
    static byte[] merged(Path folder, Path tokenizer) throws IOException {
        DownloadCheck.requireJson(tokenizer.toString(), tokenizer);
        byte[] bytes = Files.readAllBytes(tokenizer);
        List<Map.Entry<String, JsonNode>> decoder = decoder(folder);
        if (decoder.isEmpty()) return bytes;
        Set<String> known = contents(bytes);
        decoder.removeIf(token -> known.contains(content(token)));
        if (decoder.isEmpty() || !(Safetensors.JSON.readTree(bytes) instanceof ObjectNode file)) return bytes;
        if (file.hasNonNull("added_tokens") && !file.get("added_tokens").isArray())
            return bytes; // reported by the tokenizer
        ArrayNode added = file.path("added_tokens") instanceof ArrayNode there
                ? there : file.putArray("added_tokens");
        for (Map.Entry<String, JsonNode> token : decoder) {
            if (!known.add(content(token))) continue;
            ObjectNode entry = added.addObject().put("id", Integer.parseInt(token.getKey()))
                    .put("content", content(token));
            String where = folder.resolve(CONFIG) + ": " + DECODER + "." + token.getKey();
            boolean special = ModelFolder.flag(where, token.getValue(), "special", false);
            for (String flag : FLAGS)
                entry.put(flag, ModelFolder.flag(where, token.getValue(), flag,
                        flag.equals("normalized") && !special));
        }
        return Safetensors.JSON.writeValueAsBytes(file);
    }

    private static String content(Map.Entry<String, JsonNode> token) {
        return token.getValue().path("content").asText();
    }

    /// The contents of `added_tokens` of a tokenizer.json. They stand before the vocabulary, which is long.
    private static Set<String> contents(byte[] tokenizer) throws IOException {
        Set<String> contents = new HashSet<>(Set.of(""));
        try (JsonParser parser = Safetensors.JSON.createParser(tokenizer)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) return contents;
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                boolean added = parser.currentName().equals("added_tokens");
                parser.nextToken();
                if (!added) parser.skipChildren();
                else {
                    JsonNode all = Safetensors.JSON.reader()
                            .without(DeserializationFeature.FAIL_ON_TRAILING_TOKENS).readTree(parser);
                    all.forEach(token -> contents.add(token.path("content").asText()));
                    break;
                }
            }
        }
        return contents;
    }

    private static List<Map.Entry<String, JsonNode>> decoder(Path folder) {
        Path file = folder.resolve(CONFIG);
        if (!Files.isRegularFile(file)) return List.of();
        JsonNode all = Safetensors.json(file.toString(), file).path(DECODER);
        if (!all.isObject() && !all.isMissingNode() && !all.isNull())
            throw new ModelRefused(file.toString(), DECODER + " is " + all,
                    "expected an object of tokens by id; restore the original file");
        List<Map.Entry<String, JsonNode>> tokens = new ArrayList<>();
        for (Map.Entry<String, JsonNode> token : all.properties()) {
            if (!token.getKey().matches("[0-9]{1,9}") || !token.getValue().path("content").isTextual())
                throw new ModelRefused(file.toString(), DECODER + " has the entry '" + token.getKey() + "': "
                        + token.getValue(), "expected ids with a content; restore the original file");
            tokens.add(token);
        }
        tokens.sort(Comparator.comparingInt(token -> Integer.parseInt(token.getKey())));
        return tokens;
    }
}
