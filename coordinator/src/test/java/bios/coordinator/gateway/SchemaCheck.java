package bios.coordinator.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.StreamSupport;

/// Compares JSON with the schemas of an OpenAPI document, as far as it uses them.
final class SchemaCheck {
    private final JsonNode document;

    SchemaCheck(JsonNode document) {
        this.document = document;
    }

    /// The schema that a reference names, or the schema itself.
    JsonNode resolved(JsonNode schema) {
        return schema.has("$ref") ? document.at(schema.get("$ref").asText().substring(1)) : schema;
    }

    /// What is wrong with a value.
    List<String> problems(String at, JsonNode given, JsonNode value) {
        JsonNode schema = resolved(given);
        if (schema.isMissingNode()) return List.of(at + ": the schema is missing: " + given);
        if (schema.has("anyOf")) {
            var best = new ArrayList<String>();
            for (JsonNode kind : schema.get("anyOf")) {
                List<String> wrong = problems(at, kind, value);
                if (wrong.isEmpty()) return wrong;
                best.addAll(wrong);
            }
            return best;
        }
        var wrong = new ArrayList<String>();
        String type = schema.path("type").asText("");
        if (!isOf(type, value)) return List.of(at + ": is " + value.getNodeType() + ", not " + type);
        if (schema.has("enum") && StreamSupport.stream(schema.get("enum").spliterator(), false)
                .noneMatch(value::equals)) wrong.add(at + ": " + value + " is none of " + schema.get("enum"));
        if (value.isNumber() && schema.has("minimum") && value.decimalValue().compareTo(schema.get("minimum")
                .decimalValue()) < 0) wrong.add(at + ": " + value + " is too small");
        if (type.equals("array")) for (int i = 0; i < value.size(); i++)
            wrong.addAll(problems(at + "[" + i + "]", schema.get("items"), value.get(i)));
        if (type.equals("object")) object(at, schema, value, wrong);
        return wrong;
    }

    private void object(String at, JsonNode schema, JsonNode value, List<String> wrong) {
        for (JsonNode name : schema.path("required"))
            if (!value.has(name.asText())) wrong.add(at + ": " + name.asText() + " is missing");
        JsonNode others = schema.path("additionalProperties");
        value.properties().forEach(field -> {
            JsonNode known = schema.path("properties").path(field.getKey());
            String place = at + "." + field.getKey();
            if (!known.isMissingNode()) wrong.addAll(problems(place, known, field.getValue()));
            else if (others.isObject()) wrong.addAll(problems(place, others, field.getValue()));
            else wrong.add(place + ": is not in the document");
        });
    }

    private static boolean isOf(String type, JsonNode value) {
        return switch (type) {
            case "" -> true;
            case "string" -> value.isTextual();
            case "boolean" -> value.isBoolean();
            case "integer" -> value.isIntegralNumber();
            case "number" -> value.isNumber();
            case "array" -> value.isArray();
            case "object" -> value.isObject();
            case "null" -> value.isNull();
            default -> throw new IllegalStateException("unknown type " + type);
        };
    }
}
