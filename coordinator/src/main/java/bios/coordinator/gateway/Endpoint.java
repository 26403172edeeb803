package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;

/// One endpoint of the HTTP protocol.
///
/// @param method `GET`, `POST`, `PUT` or `DELETE`
/// @param pattern path segments below `/api/v1`, or below `/` after an empty one; `*` matches any segment,
///     `**` at the end the rest
/// @param authenticated whether the caller needs a key
/// @param readsBody whether the body is parsed; otherwise it is discarded
/// @param changes whether it creates, changes or deletes something, so that a key for reading is not enough
/// @param takesProtobuf whether the body may be the message of [ProtoBatch]
/// @param streamsBody whether the handler reads the body itself, as bytes of any type and number
record Endpoint(String method, List<String> pattern, boolean authenticated, boolean changes,
        boolean readsBody, boolean takesProtobuf, boolean streamsBody, Handler handler) {
    /// Handles a request. It may throw [ApiException] and [bios.protocol.Invalid], and must not block.
    @FunctionalInterface
    interface Handler {
        CompletionStage<ApiResponse> answer(ApiRequest call);
    }

    static Endpoint get(String pattern, Handler handler) {
        return new Endpoint("GET", split(pattern), true, false, false, false, false, handler);
    }

    static Endpoint post(String pattern, Handler handler) {
        return new Endpoint("POST", split(pattern), true, true, true, false, false, handler);
    }

    static Endpoint put(String pattern, Handler handler) {
        return new Endpoint("PUT", split(pattern), true, true, true, false, false, handler);
    }

    static Endpoint delete(String pattern, Handler handler) {
        return new Endpoint("DELETE", split(pattern), true, true, false, false, false, handler);
    }

    /// The same endpoint without authentication.
    Endpoint withoutKey() {
        return new Endpoint(method, pattern, false, changes, readsBody, takesProtobuf, streamsBody,
                handler);
    }

    /// The same endpoint with any body, which is discarded.
    Endpoint ignoringBody() {
        return new Endpoint(method, pattern, authenticated, changes, false, false, false, handler);
    }

    /// The same endpoint, whose body may be protobuf too.
    Endpoint orProtobuf() {
        return new Endpoint(method, pattern, authenticated, changes, readsBody, true, false, handler);
    }

    /// The same endpoint, whose handler reads the body as a stream ([ApiRequest#stream]).
    Endpoint streaming() {
        return new Endpoint(method, pattern, authenticated, changes, false, false, true, handler);
    }

    /// The same endpoint, which changes nothing though its method is POST.
    Endpoint thatReads() {
        return new Endpoint(method, pattern, authenticated, false, readsBody, takesProtobuf, streamsBody,
                handler);
    }

    private static List<String> split(String pattern) {
        return List.of(pattern.split("/"));
    }

    /// The segments at each `*`, those at `**` as one, if the path matches the pattern.
    Optional<List<String>> match(List<String> path) {
        boolean open = pattern.getLast().equals("**");
        int fixed = open ? pattern.size() - 1 : pattern.size();
        if (open ? path.size() <= fixed : path.size() != fixed) return Optional.empty();
        var parameters = new ArrayList<String>();
        for (int i = 0; i < fixed; i++) {
            if (pattern.get(i).equals("*")) parameters.add(path.get(i));
            else if (!pattern.get(i).equals(path.get(i))) return Optional.empty();
        }
        if (open) parameters.add(String.join("/", path.subList(fixed, path.size())));
        return Optional.of(parameters);
    }
}
