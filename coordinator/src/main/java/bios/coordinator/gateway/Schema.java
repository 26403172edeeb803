package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// A JSON schema as OpenAPI 3.1 has it. Immutable.
///
/// @param json its keywords
record Schema(Map<String, Object> json) {
    private static final String TYPE = "type";

    /// A field of an object.
    ///
    /// @param required whether an object without it is wrong
    record Field(String name, Schema schema, boolean required) {}

    private static Schema of(Object... keywords) {
        var json = new LinkedHashMap<String, Object>();
        for (int i = 0; i < keywords.length; i += 2) json.put((String) keywords[i], keywords[i + 1]);
        return new Schema(json);
    }

    /// Any value.
    static Schema any() {
        return of();
    }

    static Schema string() {
        return of(TYPE, "string");
    }

    static Schema bool() {
        return of(TYPE, "boolean");
    }

    static Schema number() {
        return of(TYPE, "number");
    }

    static Schema integer() {
        return of(TYPE, "integer");
    }

    /// A time as RFC 3339.
    static Schema time() {
        return of(TYPE, "string", "format", "date-time");
    }

    /// Bytes in base64.
    static Schema base64() {
        return of(TYPE, "string", "contentEncoding", "base64");
    }

    /// An integer within bounds.
    static Schema integer(long min, long max) {
        return of(TYPE, "integer", "minimum", min, "maximum", max);
    }

    /// One of some strings.
    static Schema oneOf(String... values) {
        return of(TYPE, "string", "enum", List.of(values));
    }

    static Schema array(Schema items) {
        return of(TYPE, "array", "items", items.json());
    }

    /// An object whose fields all have values of one kind.
    static Schema map(Schema values) {
        return of(TYPE, "object", "additionalProperties", values.json());
    }

    /// An object with these fields and no others.
    static Schema object(Field... fields) {
        var properties = new LinkedHashMap<String, Object>();
        var required = new ArrayList<String>();
        for (Field field : fields) {
            properties.put(field.name(), field.schema().json());
            if (field.required()) required.add(field.name());
        }
        return of(TYPE, "object", "properties", properties, "required", required,
                "additionalProperties", false);
    }

    /// A schema among those of the document.
    static Schema ref(String name) {
        return of("$ref", "#/components/schemas/" + name);
    }

    /// A value of any of these kinds.
    static Schema anyOf(Schema... kinds) {
        return of("anyOf", Arrays.stream(kinds).map(Schema::json).toList());
    }

    /// Such a value or `null`.
    Schema orNull() {
        return anyOf(this, of(TYPE, "null"));
    }

    /// The same schema with a description.
    Schema described(String text) {
        var more = new LinkedHashMap<>(json);
        more.put("description", text);
        return new Schema(more);
    }

    /// A field that an object must have.
    static Field must(String name, Schema schema) {
        return new Field(name, schema, true);
    }

    /// A field of a request that may be absent, which is what `null` means there.
    static Field may(String name, Schema schema) {
        return new Field(name, schema.orNull(), false);
    }

    /// A field of an answer that is always there and may be `null`.
    static Field nullable(String name, Schema schema) {
        return new Field(name, schema.orNull(), true);
    }

    /// A field of an answer that some answers do not have.
    static Field sometimes(String name, Schema schema) {
        return new Field(name, schema, false);
    }
}
