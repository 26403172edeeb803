package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// An HTTP request with its authenticated account.
///
/// @param id id of this HTTP request; error responses and log lines contain it
/// @param account account of the caller
/// @param parts path segments at the `*` of the pattern, in order
/// @param query the first value of each parameter
/// @param headers the last value of each header, by lower-case name
record ApiRequest(String id, String account, List<String> parts, Map<String, String> query,
        Map<String, String> headers, Optional<Json> body) {
    /// The fields of the body.
    Fields fields() {
        return Fields.ofRequest(body.orElseThrow());
    }

    /// Whether the body is an object with this field.
    boolean has(String field) {
        return body.filter(b -> b instanceof Json.Obj(var given) && given.containsKey(field)).isPresent();
    }

    /// Whether the client is Tinker's, which knows the `tinker://` scheme only.
    boolean tinker() {
        return headers.getOrDefault("user-agent", "").contains("Tinker");
    }

    /// Whether the `Accept` header names this media type.
    boolean accepts(String mediaType) {
        return headers.getOrDefault("accept", "").contains(mediaType);
    }

    /// The path in the scheme that the client understands.
    String show(CheckpointPath path) {
        return tinker() ? path.tinker() : path.bios();
    }

    /// The path of a named checkpoint; empty for a snapshot.
    Optional<String> path(CheckpointManifest manifest) {
        return manifest.path().map(this::show);
    }

    /// An integer parameter of the query.
    int number(String name, int otherwise, int least, int most) {
        String text = query.get(name);
        if (text == null) return otherwise;
        try {
            int value = Integer.parseInt(text);
            if (value >= least && value <= most) return value;
        } catch (NumberFormatException _) {
            // reported below
        }
        throw new Refusal(ErrorCode.INVALID, name,
                "'" + text + "' is wrong; expected an integer from " + least + " to " + most);
    }
}
