package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// One request that is being answered.
///
/// @param id of this HTTP request, for people who look for it in the log
/// @param account whose it is
/// @param parts what stood for the `*` of the pattern, in order
/// @param query the first value of each parameter
/// @param headers the last value of each header, by lower-case name
record Call(String id, String account, List<String> parts, Map<String, String> query,
        Map<String, String> headers, Optional<Json> body) {
    /// The fields of the body.
    Fields fields() {
        return Fields.ofRequest(body.orElseThrow());
    }

    /// Whether the body is an object with this field.
    boolean has(String field) {
        return body.filter(b -> b instanceof Json.Obj(var given) && given.containsKey(field)).isPresent();
    }

    /// Whether the client is Tinker's, which knows only its own scheme.
    boolean tinker() {
        return headers.getOrDefault("user-agent", "").contains("Tinker");
    }

    /// Whether the client takes this media type by name.
    boolean accepts(String mediaType) {
        return headers.getOrDefault("accept", "").contains(mediaType);
    }

    /// The path in the scheme that the client knows.
    String show(CheckpointPath path) {
        return tinker() ? path.tinker() : path.bios();
    }

    /// The path of a checkpoint that has a name.
    Optional<String> path(CheckpointManifest manifest) {
        return manifest.path().map(this::show);
    }

    /// A number in the query.
    int number(String name, int otherwise, int least, int most) {
        String text = query.get(name);
        if (text == null) return otherwise;
        try {
            int value = Integer.parseInt(text);
            if (value >= least && value <= most) return value;
        } catch (NumberFormatException _) {
            // said below
        }
        throw new Refusal(Code.INVALID, name,
                "'" + text + "' is wrong; expected an integer from " + least + " to " + most);
    }
}
