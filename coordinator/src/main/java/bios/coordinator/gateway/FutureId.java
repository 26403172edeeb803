package bios.coordinator.gateway;

import bios.protocol.Invalid;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunId;

/// The parsed form of a request id: `<run>:create`, `<run>:unload`, or an operation, `<run>:<seq>`, with what
/// its response needs besides the result: `:forward`, or `:sampler:<session>:<number>`.
sealed interface FutureId {
    RunId run();

    /// The creation of a run.
    record Created(RunId run) implements FutureId {}

    /// The unloading of a run.
    record Unloaded(RunId run) implements FutureId {}

    /// An operation.
    record Ran(RequestId request) implements FutureId {
        @Override public RunId run() {
            return request.run();
        }
    }

    /// A forward pass without gradient.
    record Forward(RequestId request) implements FutureId {
        @Override public RunId run() {
            return request.run();
        }
    }

    /// A snapshot that becomes the sampler of that number.
    record Snapshot(RequestId request, String session, long sampler) implements FutureId {
        @Override public RunId run() {
            return request.run();
        }
    }

    /// Parses a request id; throws a [ApiException] if it is not one.
    static FutureId parse(String text) {
        String[] words = text.split(":", -1);
        try {
            if (words.length == 2 && words[1].equals("create")) return new Created(new RunId(words[0]));
            if (words.length == 2 && words[1].equals("unload")) return new Unloaded(new RunId(words[0]));
            if (words.length >= 2) {
                var request = RequestId.parse(words[0] + ":" + words[1]);
                if (words.length == 2 && request.seq() >= 0) return new Ran(request);
                if (words.length == 3 && words[2].equals("forward")) return new Forward(request);
                if (words.length == 5 && words[2].equals("sampler"))
                    return new Snapshot(request, words[3], Long.parseLong(words[4]));
            }
        } catch (Invalid | NumberFormatException _) {
            // reported below
        }
        throw new ApiException(ErrorCode.NOT_FOUND, "request_id", "there is no request '" + text + "'");
    }
}
