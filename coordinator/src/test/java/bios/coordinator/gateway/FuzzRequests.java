package bios.coordinator.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;

/// Makes requests from an OpenAPI document: most of them right or nearly so, with ids that exist, some of
/// them wrong in a field, some of them not even JSON. The same seed and the same answers give the same
/// requests.
final class FuzzRequests {
    private static final JsonNodeFactory JSON = JsonNodeFactory.instance;
    private static final int KEPT = 40;
    private static final List<String> INPUTS =
            List.of("target_tokens", "weights", "logprobs", "advantages", "mask");
    private static final List<String> STRINGS = List.of("", "a", "b", "ultrasafe/usf-tiny", "tml-x", "..",
            "a/b", "%00", "\u0000", "\ud83d\ude00", "\u202e", "'\"<>&", "null", "0", "1e999",
            "x".repeat(300), "bios://", "tinker://a/weights/b", "2026-01-31", "2026-01-31T00:00:00Z");

    private final JsonNode document;
    private final SchemaCheck schemas;
    private final Random random;
    private final List<Operation> operations = new ArrayList<>();
    private final Map<String, List<String>> known = new HashMap<>();

    private record Operation(String method, String path, JsonNode json) {}

    /// A request.
    record Request(String method, String path, byte[] body, String contentType, String encoding,
            String accept) {
        @Override public String toString() {
            return method + " " + path + " " + contentType + " "
                    + new String(body, StandardCharsets.UTF_8).replaceAll("\\s+", " ");
        }
    }

    FuzzRequests(JsonNode document, long seed) {
        this.document = document;
        this.schemas = new SchemaCheck(document);
        this.random = new Random(seed);
        document.get("paths").properties().forEach(path -> path.getValue().properties().forEach(each ->
                operations.add(new Operation(each.getKey().toUpperCase(Locale.ROOT), path.getKey(),
                        each.getValue()))));
    }

    /// Remembers an id, which later requests name.
    void remember(String kind, String id) {
        List<String> all = known.computeIfAbsent(kind, _ -> new ArrayList<>());
        if (all.contains(id)) return;
        all.add(id);
        if (all.size() > KEPT) all.removeFirst();
    }

    /// Remembers the ids in an answer.
    void learn(JsonNode answer) {
        for (String field : List.of("session_id", "model_id", "request_id", "sampling_session_id", "path",
                "upload_id"))
            if (answer.path(field).isTextual()) remember(field, answer.get(field).asText());
    }

    private boolean chance(double p) {
        return random.nextDouble() < p;
    }

    private <T> T pick(List<T> all) {
        return all.get(random.nextInt(all.size()));
    }

    Request next() {
        Operation operation = pick(operations);
        String path = path(operation) + query(operation);
        JsonNode content = operation.json().path("requestBody").path("content");
        byte[] body = content.isMissingNode() ? chance(0.1) ? "{}".getBytes(StandardCharsets.UTF_8)
                : new byte[0] : value("", content.path("application/json").path("schema"), 0).toString()
                .getBytes(StandardCharsets.UTF_8);
        String type = chance(0.98) ? "application/json"
                : pick(List.of("application/x-protobuf", "text/plain", "multipart/form-data"));
        if (chance(0.03)) body = damaged(body);
        String method = chance(0.99) ? operation.method() : pick(List.of("GET", "POST", "PUT", "DELETE",
                "PATCH", "OPTIONS"));
        return new Request(method, path, body, type, chance(0.01) ? pick(List.of("zstd", "gzip")) : "",
                chance(0.1) ? pick(List.of("application/x-protobuf", "application/vnd.bios+json",
                        "application/gzip", "*/*")) : "application/json");
    }

    private byte[] damaged(byte[] body) {
        if (body.length == 0 || chance(0.3)) {
            byte[] noise = new byte[random.nextInt(200)];
            random.nextBytes(noise);
            return noise;
        }
        if (chance(0.5)) return Arrays.copyOf(body, random.nextInt(body.length));
        byte[] changed = body.clone();
        changed[random.nextInt(changed.length)] = (byte) random.nextInt(256);
        return changed;
    }

    private String path(Operation operation) {
        var path = new StringBuilder();
        for (String segment : operation.path().substring(1).split("/")) {
            String text = !segment.startsWith("{") ? segment
                    : encoded(named(segment.substring(1, segment.length() - 1)));
            path.append('/').append(text);
        }
        return path.toString();
    }

    private String query(Operation operation) {
        var query = new StringBuilder();
        for (JsonNode parameter : operation.json().path("parameters")) {
            if (!parameter.path("in").asText().equals("query") || chance(0.6)) continue;
            String name = parameter.path("name").asText();
            query.append(query.isEmpty() ? "?" : "&").append(name).append('=').append(encoded(
                    value(name, parameter.path("schema"), 3).asText()));
        }
        return query.toString();
    }

    private static String encoded(String text) {
        String encoded = URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
        return encoded.isEmpty() || encoded.equals(".") || encoded.equals("..") ? "x" + encoded : encoded;
    }

    /// A string for a parameter or field of this name.
    private String named(String name) {
        if (chance(0.06)) return pick(STRINGS);
        return switch (name) {
            case "run", "model_id", "training_run_id" -> one("model_id");
            case "session", "session_id" -> one("session_id");
            case "sampler", "sampling_session_id" -> one("sampling_session_id");
            case "kind" -> pick(List.of("weights", "sampler_weights"));
            case "name" -> pick(List.of("a", "b"));
            case "request_id" -> one("request_id");
            case "upload", "upload_id" -> one("upload_id");
            case "file" -> pick(Uploads.FILES);
            case "path", "model_path", "tinker_path" -> chance(0.2) ? pick(List.of("a", "b"))
                    : one("path");
            case "base_model" -> "ultrasafe/usf-tiny";
            case "model" -> chance(0.6) ? "ultrasafe/usf-tiny" : one("path");
            case "project_id" -> pick(List.of("p", "q"));
            default -> pick(STRINGS);
        };
    }

    private String one(String kind) {
        List<String> all = known.getOrDefault(kind, List.of());
        return all.isEmpty() ? pick(STRINGS) : pick(all);
    }

    private JsonNode value(String name, JsonNode given, int depth) {
        JsonNode schema = schemas.resolved(given);
        if (chance(0.015)) return junk(0);
        if (schema.has("anyOf")) {
            JsonNode kinds = schema.get("anyOf");
            return value(name, kinds.get(chance(0.85) ? 0 : random.nextInt(kinds.size())), depth);
        }
        return switch (schema.path("type").asText("")) {
            case "string" -> JSON.textNode(schema.has("enum") && chance(0.97)
                    ? schema.get("enum").get(random.nextInt(schema.get("enum").size())).asText()
                    : named(name));
            case "boolean" -> JSON.booleanNode(random.nextBoolean());
            case "integer" -> integer(schema);
            case "number" -> JSON.numberNode(pick(List.of(0.0, 1.0, 0.5, -1.0, 1e-4, 1e30, -0.0)));
            case "null" -> JSON.nullNode();
            case "array" -> array(name, schema, depth);
            case "object" -> object(name, schema, depth);
            default -> junk(1);
        };
    }

    private JsonNode integer(JsonNode schema) {
        long min = schema.path("minimum").asLong(0);
        if (chance(0.05)) return JSON.numberNode(pick(List.of(-1L, Long.MIN_VALUE, Long.MAX_VALUE, 1L << 40,
                min - 1, schema.path("maximum").asLong(7))));
        return JSON.numberNode(min + random.nextInt(12));
    }

    private ArrayNode array(String name, JsonNode schema, int depth) {
        ArrayNode array = JSON.arrayNode();
        int size = depth > 8 ? 0 : chance(0.02) ? 200 : 1 + random.nextInt(3);
        if (chance(0.03)) size = 0;
        for (int i = 0; i < size; i++) array.add(value(name, schema.path("items"), depth + 1));
        return array;
    }

    private ObjectNode object(String name, JsonNode schema, int depth) {
        ObjectNode object = JSON.objectNode();
        var required = new ArrayList<String>();
        schema.path("required").forEach(each -> required.add(each.asText()));
        schema.path("properties").properties().forEach(field -> {
            boolean unsupported = field.getValue().findValuesAsText("description")
                    .contains(ApiDocument.UNSUPPORTED);
            if (chance(required.contains(field.getKey()) ? 0.985 : unsupported ? 0.01 : 0.3))
                object.set(field.getKey(), value(field.getKey(), field.getValue(), depth + 1));
        });
        JsonNode others = schema.path("additionalProperties");
        if (others.isObject() && depth < 8) for (int i = random.nextInt(3); i >= 0; i--)
            object.set(name.equals("loss_fn_inputs") ? pick(INPUTS) : pick(STRINGS),
                    value("", others, depth + 1));
        if (chance(0.01)) object.set(pick(STRINGS), junk(0));
        return object;
    }

    private JsonNode junk(int depth) {
        return switch (random.nextInt(depth > 3 ? 6 : 8)) {
            case 0 -> JSON.nullNode();
            case 1 -> JSON.textNode(pick(STRINGS));
            case 2 -> JSON.numberNode(random.nextLong());
            case 3 -> JSON.numberNode(random.nextGaussian() * 1e300);
            case 4 -> JSON.booleanNode(true);
            case 5 -> JSON.numberNode(new java.math.BigInteger(300, random));
            case 6 -> JSON.arrayNode().add(junk(depth + 1)).add(junk(depth + 1));
            default -> JSON.objectNode().set(pick(STRINGS), junk(depth + 1));
        };
    }
}
