package bios.protocol.run;

import bios.protocol.Invalid;

/// The id of the future of a run's operation: `<run>:<seq>`.
///
/// @param seq the client's sequence number, at least 0
public record RequestId(RunId run, long seq) {
    /// Parses `<run>:<seq>`.
    public static RequestId parse(String text) {
        int colon = text == null ? -1 : text.lastIndexOf(':');
        try {
            if (colon > 0) return new RequestId(new RunId(text.substring(0, colon)),
                    Long.parseLong(text.substring(colon + 1)));
        } catch (NumberFormatException _) {
            // reported below
        }
        throw new Invalid("request_id", "'" + text + "' is not a request id");
    }

    @Override public String toString() {
        return run + ":" + seq;
    }
}
