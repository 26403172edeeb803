package bios.coordinator.gateway;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import org.apache.pekko.stream.javadsl.Source;
import org.apache.pekko.util.ByteString;

/// What a call answers.
sealed interface Reply {
    /// @param body maps, lists, strings, numbers, arrays of floats, [Optional]s and raw JSON
    /// @param large whether writing it takes a while
    record Value(int status, Object body, boolean large) implements Reply {}

    /// Done, and nothing to say.
    record Nothing() implements Reply {}

    /// Bytes that are made while they are sent.
    record Stream(String contentType, String fileName, Source<ByteString, ?> bytes) implements Reply {}

    static Reply ok(Object... namesAndValues) {
        return new Value(200, object(namesAndValues), false);
    }

    /// An object of names and values; an empty [Optional] is `null`.
    static Map<String, Object> object(Object... namesAndValues) {
        var object = new LinkedHashMap<String, Object>();
        for (int i = 0; i < namesAndValues.length; i += 2)
            object.put((String) namesAndValues[i], namesAndValues[i + 1] instanceof Optional<?> o
                    ? o.orElse(null) : namesAndValues[i + 1]);
        return object;
    }
}
