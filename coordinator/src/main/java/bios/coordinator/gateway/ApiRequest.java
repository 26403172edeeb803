package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import java.io.InputStream;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.function.LongConsumer;
import java.util.function.Supplier;
import java.util.regex.Pattern;

/// An HTTP request with its authenticated account.
///
/// @param id id of this HTTP request; error responses and log lines contain it
/// @param caller who sends it; anybody for an endpoint without a key
/// @param pathParameters path segments at the `*` of the pattern, in order
/// @param query the first value of each parameter
/// @param headers the last value of each header, by lower-case name
/// @param heap is told the bytes that the request takes before they are taken, and throws if they are too
///     many
/// @param stream the body of an endpoint that reads it itself
record ApiRequest(String id, Accounts.Caller caller, List<String> pathParameters, Map<String, String> query,
        Map<String, String> headers, Optional<Json> body, LongConsumer heap, Optional<BodyStream> stream) {
    /// The media type of protobuf in Tinker, and the registered one.
    static final List<String> PROTOBUF_TYPES = List.of("application/x-protobuf", "application/protobuf");
    private static final Pattern TINKER_VERSION = Pattern.compile("Tinker/Python (\\d{1,4})\\.(\\d{1,4})");
    private static final Pattern REST = Pattern.compile("bytes=(\\d{1,18})-");

    /// A body of any size.
    ///
    /// @param bytes its length; empty: it is not announced
    /// @param open opens it, once, for reads that block
    record BodyStream(OptionalLong bytes, Supplier<InputStream> open) {}

    /// The account of the caller.
    String account() {
        return caller.account();
    }

    /// The fields of the body.
    Fields bodyFields() {
        return Fields.ofRequest(body.orElseThrow());
    }

    /// Whether the body is an object with this field.
    boolean bodyHas(String field) {
        return body.filter(b -> b instanceof Json.Obj(var given) && given.containsKey(field)).isPresent();
    }

    /// Whether the client is the Tinker client, which supports only the `tinker://` scheme.
    boolean isTinkerClient() {
        return headers.getOrDefault("user-agent", "").contains("Tinker");
    }

    /// Whether the client reads a pass as protobuf in which the records differ in shape: Tinker's client
    /// until 0.24 takes the shape of the first record for that of all.
    boolean readsMixedShapes() {
        return !isTinkerClient() || tinkerVersionIsAtLeast(0, 25);
    }

    /// Whether the client reads an archive itself; Tinker's client expects its URL.
    boolean readsArchives() {
        return !isTinkerClient();
    }

    /// Whether the client expects an upload's URL in an object with the headers to send: Tinker's client does
    /// from 0.40 on.
    boolean expectsUploadHeaders() {
        return tinkerVersionIsAtLeast(0, 40);
    }

    private boolean tinkerVersionIsAtLeast(int major, int minor) {
        var version = TINKER_VERSION.matcher(headers.getOrDefault("user-agent", ""));
        if (!version.find()) return false;
        int first = Integer.parseInt(version.group(1));
        return first > major || first == major && Integer.parseInt(version.group(2)) >= minor;
    }

    /// Whether the body is protobuf.
    boolean sentProtobuf() {
        return PROTOBUF_TYPES.contains(headers.get("content-type"));
    }

    /// Whether the client reads results as protobuf.
    boolean acceptsProtobuf() {
        return PROTOBUF_TYPES.stream().anyMatch(this::accepts);
    }

    /// Whether the `Accept` header names this media type.
    boolean accepts(String mediaType) {
        return headers.getOrDefault("accept", "").contains(mediaType);
    }

    /// The offset from which the client wants the content of this tag, if it asks for the rest of a download:
    /// a `Range` of another form, and one for other content (`If-Range`), asks for all of it.
    Optional<Long> restFrom(String tag) {
        var range = REST.matcher(headers.getOrDefault("range", ""));
        String quoted = "\"" + tag + "\"";
        if (!range.matches() || !headers.getOrDefault("if-range", quoted).equals(quoted))
            return Optional.empty();
        return Optional.of(Long.parseLong(range.group(1)));
    }

    /// The path in the scheme that the client understands.
    String clientPath(CheckpointPath path) {
        return isTinkerClient() ? path.tinkerUri() : path.biosUri();
    }

    /// The path of a named checkpoint in the scheme that the client understands; empty for a snapshot.
    Optional<String> clientPath(CheckpointManifest manifest) {
        return manifest.path().map(this::clientPath);
    }

    /// A parameter of the query.
    Optional<String> parameter(String name) {
        return Optional.ofNullable(query.get(name));
    }

    /// A parameter of the query that has one of some values.
    Optional<String> oneOf(String name, List<String> values) {
        parameter(name).filter(given -> !values.contains(given)).ifPresent(given -> {
            throw new ApiException(ErrorCode.INVALID, name,
                    "'" + given + "' is unknown; expected " + String.join(" or ", values));
        });
        return parameter(name);
    }

    /// Whether the caller asks for what others have published, too.
    boolean asksForAccessible() {
        return oneOf("access_scope", List.of("owned", "accessible")).filter("accessible"::equals).isPresent();
    }

    /// The number of the last entry that the caller has, if it wants to wait for newer ones.
    Optional<Long> after() {
        return parameter("after").map(text -> {
            if (!text.matches("\\d{1,18}")) throw new ApiException(ErrorCode.INVALID, "after",
                    "'" + text + "' is invalid; expected the number of an entry, or 0");
            return Long.parseLong(text);
        });
    }

    /// An integer parameter of the query.
    int intParameter(String name, int defaultValue, int min, int max) {
        String text = query.get(name);
        if (text == null) return defaultValue;
        try {
            int value = Integer.parseInt(text);
            if (value >= min && value <= max) return value;
        } catch (NumberFormatException _) {
            // reported below
        }
        throw new ApiException(ErrorCode.INVALID, name,
                "'" + text + "' is invalid; expected an integer from " + min + " to " + max);
    }
}
