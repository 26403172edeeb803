package bios.protocol.sampling;

import bios.protocol.Fault;
import bios.protocol.wire.Message;
import bios.protocol.wire.Reply;
import java.util.List;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.receptionist.ServiceKey;

/// Commands of a gateway to a sampling router. Every coordinator has one router; a request stays with the
/// router that accepted it, and its id names that router, so that any coordinator can forward to it.
public sealed interface SamplingCommand extends Message {
    /// The key under which the receptionist lists the router of this name.
    static ServiceKey<SamplingCommand> key(String router) {
        return ServiceKey.create(SamplingCommand.class, "sampling-router-" + router);
    }

    /// Accepts a request; a repeated task id gets the first reply. Reply: [SamplingReply.Accepted]
    /// or [SamplingReply.Refused].
    ///
    /// @param owner the caller's account
    record Submit(String owner, SampleTask task, ActorRef<SamplingReply> replyTo)
            implements SamplingCommand {}

    /// Waits up to `waitMillis` for the outcome of a request. Reply: [SamplingReply.Completed],
    /// [SamplingReply.Failed], [SamplingReply.Pending], [SamplingReply.Foreign] or [SamplingReply.Gone].
    record Retrieve(String owner, String request, long waitMillis, ActorRef<SamplingReply> replyTo)
            implements SamplingCommand {}

    /// Waits up to `waitMillis` for tokens beyond `received`, or the outcome, of a request that this router
    /// has accepted. Reply: [SamplingReply.Drawn], or as for [Retrieve].
    ///
    /// @param received for each sequence how many tokens are known already
    record Follow(String owner, String request, int[] received, long waitMillis,
            ActorRef<SamplingReply> replyTo) implements SamplingCommand {}

    /// Cancels a request: it fails, and its worker stops. No reply.
    record Cancel(String owner, String request) implements SamplingCommand {}

    /// The replies.
    sealed interface SamplingReply extends Reply {
        /// @param request the id under which the result can be retrieved
        record Accepted(String request) implements SamplingReply {}

        /// The result.
        record Completed(String request, SampleResult result) implements SamplingReply {}

        /// Tokens of an unfinished request, of each sequence.
        record Drawn(String request, List<DrawnTokens> sequences) implements SamplingReply {}

        /// The request failed permanently.
        record Failed(String request, Fault fault) implements SamplingReply {}

        /// Not finished within the wait time.
        record Pending(String request, String state) implements SamplingReply {}

        /// The request belongs to another account.
        record Foreign(String request) implements SamplingReply {}

        /// The request is not known any more; the same request with its seed gives the same tokens.
        record Gone(String request) implements SamplingReply {}

        /// The queue is full, or the request could not be stored: it may be submitted again.
        record Refused(Fault fault) implements SamplingReply {}
    }
}
