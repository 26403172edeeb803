package bios.coordinator.gateway;

import bios.protocol.client.Answer;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;
import org.apache.pekko.stream.javadsl.Source;
import org.apache.pekko.util.ByteString;

/// The response of an endpoint.
sealed interface ApiResponse {
    /// @param body maps, lists, strings, numbers, arrays of floats, [Optional]s and raw JSON
    /// @param large whether it is serialized on a reader thread
    record JsonBody(int status, Object body, boolean large) implements ApiResponse {}

    /// A large JSON object, written while the client reads it.
    ///
    /// @param fields as in [JsonBlocks]
    /// @param heapBytes about how much the fields, and the text of the longest one, take while it is written
    record JsonStream(Map<String, Object> fields, long heapBytes) implements ApiResponse {}

    /// A body of bytes.
    ///
    /// @param heapBytes about how much it takes while it is made, and then as a whole; a large one is made on
    ///     a reader thread
    record Binary(String contentType, Supplier<byte[]> body, long heapBytes) implements ApiResponse {}

    /// A body that is made while the client reads it.
    ///
    /// @param end what to do when the client has read it, or is gone; can be repeated
    record Streamed(String contentType, Source<ByteString, ?> bytes, Runnable end) implements ApiResponse {}

    /// A response in two forms, of which one is made: the actor protocol's answer, and the HTTP response.
    record Typed(Supplier<Answer> answer, Supplier<ApiResponse> http) implements ApiResponse {}

    /// Status 204 without a body.
    record NoContent() implements ApiResponse {}

    /// Status 302 without a body.
    ///
    /// @param expires when the location ends to serve anything, in milliseconds since the epoch
    record Redirect(String location, long expires) implements ApiResponse {}

    /// A download.
    ///
    /// @param tag names the content: another tag means other bytes
    /// @param part which of the bytes these are, if the client has asked for the rest of a download
    record ByteStream(String contentType, String fileName, String tag, Optional<Part> part,
            Source<ByteString, ?> bytes) implements ApiResponse {
        /// The bytes from an offset to the end.
        record Part(long from, long total) {}
    }

    /// A small answer of the actor protocol with the object that it is over HTTP.
    static ApiResponse typed(Answer answer, Object... namesAndValues) {
        return new Typed(() -> answer, () -> ok(namesAndValues));
    }

    static ApiResponse ok(Object... namesAndValues) {
        return new JsonBody(200, object(namesAndValues), false);
    }

    /// An object of names and values; an empty [Optional] becomes `null`.
    static Map<String, Object> object(Object... namesAndValues) {
        var object = new LinkedHashMap<String, Object>();
        for (int i = 0; i < namesAndValues.length; i += 2)
            object.put((String) namesAndValues[i], namesAndValues[i + 1] instanceof Optional<?> o
                    ? o.orElse(null) : namesAndValues[i + 1]);
        return object;
    }
}
