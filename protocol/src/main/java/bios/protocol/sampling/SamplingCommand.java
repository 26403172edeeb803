package bios.protocol.sampling;

import bios.protocol.Fault;
import bios.protocol.wire.Message;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.receptionist.ServiceKey;

/// What a gateway asks of a sampling router. Every coordinator has one router; a request stays with the
/// router that accepted it, and its id names that router, so that any coordinator can answer for it.
public sealed interface SamplingCommand extends Message {
    /// Where the receptionist lists the router of this name.
    static ServiceKey<SamplingCommand> key(String router) {
        return ServiceKey.create(SamplingCommand.class, "sampling-router-" + router);
    }

    /// Accepts a request; a task id seen before gets its first answer. Answered by [SamplingReply.Accepted]
    /// or [SamplingReply.Refused].
    ///
    /// @param owner the caller's account
    record Submit(String owner, SampleTask task, ActorRef<SamplingReply> replyTo)
            implements SamplingCommand {}

    /// Waits up to `waitMillis` for the outcome of a request. Answered by [SamplingReply.Completed],
    /// [SamplingReply.Failed], [SamplingReply.Pending], [SamplingReply.Foreign] or [SamplingReply.Gone].
    record Retrieve(String owner, String request, long waitMillis, ActorRef<SamplingReply> replyTo)
            implements SamplingCommand {}

    /// The answers.
    sealed interface SamplingReply extends Message {
        /// @param request the id under which the result can be retrieved
        record Accepted(String request) implements SamplingReply {}

        /// The result.
        record Completed(String request, SampleResult result) implements SamplingReply {}

        /// The request failed for good.
        record Failed(String request, Fault fault) implements SamplingReply {}

        /// Not finished within the wait.
        record Pending(String request, String state) implements SamplingReply {}

        /// The request is somebody else's.
        record Foreign(String request) implements SamplingReply {}

        /// There is no such request any more; submitted again with its seed it gives the same tokens.
        record Gone(String request) implements SamplingReply {}

        /// Too much is waiting; nothing was stored.
        record Refused(Fault fault) implements SamplingReply {}
    }
}
