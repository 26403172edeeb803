package bios.protocol.session;

import bios.protocol.Fault;
import bios.protocol.model.ModelName;
import bios.protocol.run.RunId;
import bios.protocol.sampling.SampleTask;
import bios.protocol.wire.Message;
import bios.protocol.wire.Reply;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// Commands of the gateway to the entity of a client session, which records the runs and samplers that the
/// client opened. `owner` is the caller's account; other accounts get [SessionReply.Refused].
public sealed interface SessionCommand extends Message {
    /// Opens the session. Idempotent. Reply: [SessionReply.Described].
    ///
    /// @param project of the runs that are created in it
    record Open(String owner, List<String> tags, String userMetadata, String sdkVersion, long nowMillis,
            Optional<String> project, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// Moves the session to a project. Reply: [SessionReply.Described].
    record SetProject(String owner, Optional<String> project, ActorRef<SessionReply> replyTo)
            implements SessionCommand {}

    /// The client is alive. Reply: [SessionReply.Described].
    record Heartbeat(String owner, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// Adds a run to this session. Reply: [SessionReply.Described].
    record AddRun(String owner, RunId run, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// Adds a sampler under the client's number; a repeated number gets the first sampler. Reply:
    /// [SessionReply.SamplerOpened].
    record OpenSampler(String owner, long seq, Sampler sampler, ActorRef<SessionReply> replyTo)
            implements SessionCommand {}

    /// Finds a sampler. Reply: [SessionReply.SamplerOpened].
    record FindSampler(String owner, long seq, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// Reply: [SessionReply.Described].
    record Describe(String owner, ActorRef<SessionReply> replyTo) implements SessionCommand {}

    /// The immutable weights that a sampling client samples from.
    ///
    /// @param path the checkpoint path that it was opened with; empty for the base model and for snapshots
    /// @param adapter empty for the base model
    record Sampler(ModelName baseModel, Optional<String> path, Optional<SampleTask.Adapter> adapter) {}

    /// The replies.
    sealed interface SessionReply extends Reply {
        record SamplerOpened(String samplerId, Sampler sampler) implements SessionReply {}

        record Described(String session, List<RunId> runs, List<String> samplers, Optional<String> project)
                implements SessionReply {}

        record Refused(Fault fault) implements SessionReply {}
    }
}
