package bios.coordinator.gateway;

import bios.protocol.Invalid;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunId;

/// The parsed form of a request id: `<run>:create`, `<run>:unload`, or `<run>:<seq>` for an operation. The
/// id of an operation may end with `:forward`, `:load`, `:external` or `:sampler:<session>:<number>`, which
/// selects the form of the response.
sealed interface FutureId {
    RunId run();

    /// The creation of a run.
    record Creation(RunId run) implements FutureId {}

    /// The unloading of a run.
    record Unloading(RunId run) implements FutureId {}

    /// A form of the response to an operation.
    sealed interface OfOperation extends FutureId {
        RequestId request();

        @Override default RunId run() {
            return request().run();
        }
    }

    /// An operation.
    record Operation(RequestId request) implements OfOperation {}

    /// A forward pass without gradient.
    record Forward(RequestId request) implements OfOperation {}

    /// A load that made its run.
    record Load(RequestId request) implements OfOperation {}

    /// Sampler weights that were saved for use elsewhere.
    record External(RequestId request) implements OfOperation {}

    /// A snapshot that becomes the sampler of that number.
    record Snapshot(RequestId request, String session, long sampler) implements OfOperation {
        public Snapshot {
            if (sampler < 0 || sampler > KnownSamplers.MOST_NUMBER)
                throw new Invalid("request_id", "has no number of a sampler");
        }
    }

    /// Parses a request id; throws an [ApiException] if it is not one.
    static FutureId parse(String text) {
        String[] parts = text.split(":", -1);
        try {
            if (parts.length == 2 && parts[1].equals("create")) return new Creation(new RunId(parts[0]));
            if (parts.length == 2 && parts[1].equals("unload")) return new Unloading(new RunId(parts[0]));
            if (parts.length >= 2) {
                var request = RequestId.parse(parts[0] + ":" + parts[1]);
                if (parts.length == 2 && request.seq() >= 0) return new Operation(request);
                if (parts.length == 3 && parts[2].equals("forward")) return new Forward(request);
                if (parts.length == 3 && parts[2].equals("load")) return new Load(request);
                if (parts.length == 3 && parts[2].equals("external")) return new External(request);
                if (parts.length == 5 && parts[2].equals("sampler"))
                    return new Snapshot(request, parts[3], Long.parseLong(parts[4]));
            }
        } catch (Invalid | NumberFormatException _) {
            // reported below
        }
        throw new ApiException(ErrorCode.NOT_FOUND, "request_id", "there is no request '" + text + "'");
    }
}
