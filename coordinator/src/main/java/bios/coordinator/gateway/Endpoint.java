package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;

/// One call of the protocol.
///
/// @param method `GET`, `POST`, `PUT` or `DELETE`
/// @param pattern segments below `/api/v1`; `*` stands for any one
/// @param keyed whether the caller has to be known
/// @param read whether a body is read; otherwise it may be anything
record Endpoint(String method, List<String> pattern, boolean keyed, boolean read, Handler handler) {
    /// Answers a call. It may throw [Refusal] and [bios.protocol.Invalid], and must not block.
    @FunctionalInterface
    interface Handler {
        CompletionStage<Reply> answer(Call call);
    }

    static Endpoint get(String pattern, Handler handler) {
        return new Endpoint("GET", split(pattern), true, false, handler);
    }

    static Endpoint post(String pattern, Handler handler) {
        return new Endpoint("POST", split(pattern), true, true, handler);
    }

    static Endpoint put(String pattern, Handler handler) {
        return new Endpoint("PUT", split(pattern), true, true, handler);
    }

    static Endpoint delete(String pattern, Handler handler) {
        return new Endpoint("DELETE", split(pattern), true, false, handler);
    }

    /// The same for anybody.
    Endpoint open() {
        return new Endpoint(method, pattern, false, read, handler);
    }

    /// The same with a body that does not matter.
    Endpoint unread() {
        return new Endpoint(method, pattern, keyed, false, handler);
    }

    private static List<String> split(String pattern) {
        return List.of(pattern.split("/"));
    }

    /// What stands for each `*`, if the path is of this pattern.
    Optional<List<String>> match(List<String> path) {
        if (path.size() != pattern.size()) return Optional.empty();
        var parts = new ArrayList<String>();
        for (int i = 0; i < path.size(); i++) {
            if (pattern.get(i).equals("*")) parts.add(path.get(i));
            else if (!pattern.get(i).equals(path.get(i))) return Optional.empty();
        }
        return Optional.of(parts);
    }
}
