package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What the document says about one endpoint.
///
/// @param path below `/api/v1`, or from the root with a slash, with the names of its parameters in braces
/// @param query the parameters of the query
/// @param body of the request; empty: none, or one that is ignored
/// @param answer with status 200; empty: status 204
/// @param media another media type in which the answer comes, too
record ApiOperation(String method, String path, String summary, Map<String, Schema> query,
        Optional<Schema> body, Optional<Schema> answer, Optional<String> media) {
    static ApiOperation of(String method, String path, String summary) {
        return new ApiOperation(method, path, summary, Map.of(), Optional.empty(), Optional.empty(),
                Optional.empty());
    }

    ApiOperation taking(Schema.Field... fields) {
        return new ApiOperation(method, path, summary, query, Optional.of(Schema.object(fields)), answer,
                media);
    }

    ApiOperation asking(String name, Schema schema) {
        var more = new LinkedHashMap<>(query);
        more.put(name, schema);
        return new ApiOperation(method, path, summary, more, body, answer, media);
    }

    ApiOperation answering(Schema schema) {
        return new ApiOperation(method, path, summary, query, body, Optional.of(schema), media);
    }

    ApiOperation or(String mediaType) {
        return new ApiOperation(method, path, summary, query, body, answer, Optional.of(mediaType));
    }

    /// Its path from the root.
    String fullPath() {
        return path.startsWith("/") ? path : "/api/v1/" + path;
    }

    /// Its endpoint, as `METHOD pattern`.
    String endpoint() {
        return method + " " + (path.startsWith("/") ? path.replaceAll("\\{[^}]*}$", "**") : path)
                .replaceAll("\\{[^}]*}", "*");
    }

    /// The operation in the document.
    Map<String, Object> json(Endpoint endpoint) {
        var json = new LinkedHashMap<String, Object>();
        json.put("operationId", (method.toLowerCase(java.util.Locale.ROOT) + "_"
                + path.replaceAll("[{}]", "")).replaceAll("[^a-z_]+", "_"));
        json.put("summary", summary);
        if (!endpoint.authenticated()) json.put("security", List.of());
        List<Object> parameters = parameters();
        if (!parameters.isEmpty()) json.put("parameters", parameters);
        body.ifPresent(schema -> {
            var content = new LinkedHashMap<>(content("application/json", schema.json()));
            if (endpoint.takesProtobuf()) content.put(ApiRequest.PROTOBUF_TYPES.getFirst(), Map.of());
            json.put("requestBody", ApiResponse.object("required", true, "content", content));
        });
        json.put("responses", responses());
        return json;
    }

    private List<Object> parameters() {
        var all = new ArrayList<Object>();
        for (String segment : path.split("/"))
            if (segment.startsWith("{")) all.add(ApiResponse.object("name",
                    segment.substring(1, segment.length() - 1), "in", "path", "required", true, "schema",
                    Schema.string().json()));
        query.forEach((name, schema) -> all.add(ApiResponse.object("name", name, "in", "query", "required",
                false, "schema", schema.json())));
        return all;
    }

    private Map<String, Object> responses() {
        var all = new LinkedHashMap<String, Object>();
        answer.ifPresentOrElse(schema -> {
            var content = new LinkedHashMap<>(content("application/json", schema.json()));
            media.ifPresent(type -> content.put(type, Map.of()));
            all.put("200", ApiResponse.object("description", "the answer", "content", content));
        }, () -> all.put("204", Map.of("description", "done")));
        if (path.equals("retrieve_future")) all.put("408", ApiResponse.object("description",
                "not finished; ask again", "content", content("application/json",
                        Schema.ref("TryAgain").json())));
        all.put("default", ApiResponse.object("description", "an error", "content",
                content("application/json",
                        Schema.ref(error()).json())));
        return all;
    }

    private String error() {
        return path.equals("/v1/messages") ? "MessageError" : path.startsWith("/") ? "OpenAiError" : "Error";
    }

    private static Map<String, Object> content(String type, Map<String, Object> schema) {
        return ApiResponse.object(type, Map.of("schema", schema));
    }
}
