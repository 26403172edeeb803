package bios.protocol.session;

import bios.protocol.Fault;
import bios.protocol.model.ModelName;
import bios.protocol.run.RunId;
import bios.protocol.sampling.SampleTask;
import bios.protocol.wire.Message;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// What the gateway asks of the entity of a client session: it remembers which runs and samplers the client
/// opened. `owner` is the caller's account; others get [SessionReply.Refused].
public sealed interface SessionCommand extends Message {
    /// Opens the session; repeating it changes nothing. Answered by [SessionReply.Described].
    record Open(String owner, List<String> tags, String userMetadata, String sdkVersion, long nowMillis,
            ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// The client lives. Answered by [SessionReply.Described].
    record Heartbeat(String owner, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// Remembers a run of this session. Answered by [SessionReply.Described].
    record AddRun(String owner, RunId run, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// Pins a sampler under the client's number; a number seen before gets its first sampler. Answered by
    /// [SessionReply.SamplerOpened].
    record OpenSampler(String owner, long seq, Sampler sampler, ActorRef<SessionReply> replyTo)
            implements SessionCommand {}

    /// Finds a sampler. Answered by [SessionReply.SamplerOpened].
    record FindSampler(String owner, long seq, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// Answered by [SessionReply.Described].
    record Describe(String owner, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// What a sampling client samples from, for ever.
    ///
    /// @param path the checkpoint path that it was opened with; empty for the base model and for snapshots
    /// @param adapter empty for the base model
    record Sampler(ModelName baseModel, Optional<String> path, Optional<SampleTask.Adapter> adapter) {}

    /// The answers.
    sealed interface SessionReply extends Message {
        record SamplerOpened(String samplerId, Sampler sampler) implements SessionReply {}

        record Described(String session, List<RunId> runs, List<String> samplers) implements SessionReply {}

        record Refused(Fault fault) implements SessionReply {}
    }
}
