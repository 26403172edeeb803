package bios.protocol.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.LoraSpec;
import bios.protocol.wire.Message;
import bios.protocol.wire.Reply;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// Commands of the gateway to the entity of a training run. `owner` is the caller's account: the entity
/// replies [RunReply.Refused] with `not_found` to every account but its owner's.
public sealed interface RunCommand extends Message {
    /// Creates the run. Idempotent for the same configuration, apart from its time. Reply:
    /// [RunReply.Described].
    record Create(RunConfig config, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Accepts an operation under the client's sequence number; a repeated number gets the first reply.
    /// Reply: [RunReply.Accepted] when it is in the journal.
    ///
    /// @param digest SHA-256 of the encoded operation: distinguishes a repetition from another operation with
    ///     the same number
    record Submit(String owner, long seq, StoredOperation operation, String digest, long nowMillis,
            ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Waits up to `waitMillis` for the outcome of `seq`. Reply: [RunReply.Completed],
    /// [RunReply.Failed], [RunReply.Pending] or [RunReply.Stalled].
    record Retrieve(String owner, long seq, long waitMillis, ActorRef<RunReply> replyTo)
            implements RunCommand {}

    /// Asks whether the run exists and belongs to `owner`. Reply: [RunReply.Done].
    record CheckOwner(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Describes the run without its checkpoints, which may be many. Reply: [RunReply.Summary].
    record Summarize(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Describes run and checkpoints. Reply: [RunReply.Described].
    ///
    /// @param accessible whether another account may be told of a run with published checkpoints, and of
    ///     these checkpoints only
    record Describe(String owner, boolean accessible, ActorRef<RunReply> replyTo) implements RunCommand {
        /// As the owner only may.
        public Describe(String owner, ActorRef<RunReply> replyTo) {
            this(owner, false, replyTo);
        }
    }

    /// Finds a committed checkpoint; every account finds a published one. Reply: [RunReply.Resolved].
    record Resolve(String owner, CheckpointPath path, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Tells the run that weights of it are in use: they stay for another lease, with or without a name.
    /// Reply: [RunReply.Done], or refused as `EXPIRED`.
    ///
    /// @param loaded whether another run has loaded them and may have to load them again
    record KeepWeights(String owner, BlobId adapter, boolean loaded, ActorRef<RunReply> replyTo)
            implements RunCommand {}

    /// Deletes a checkpoint with all its versions. Reply: [RunReply.Done].
    record DeleteCheckpoint(String owner, CheckpointKind kind, CheckpointName name,
            ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Sets the expiry time, or removes it if it is empty. Reply: [RunReply.Done].
    record SetExpiry(String owner, CheckpointKind kind, CheckpointName name, Optional<Long> expiresAtMillis,
            ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Makes a checkpoint readable by every account, or by its owner only. Reply: [RunReply.Done].
    record Publish(String owner, CheckpointKind kind, CheckpointName name, boolean published,
            ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Moves the run to a project, or out of any if it is empty. Reply: [RunReply.Done].
    record SetProject(String owner, Optional<String> project, ActorRef<RunReply> replyTo)
            implements RunCommand {}

    /// Deletes the ephemeral snapshots of a session that has ended. Reply: [RunReply.Done].
    record ReleaseSnapshots(String owner, String session, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Closes the run permanently: its state is deleted, its checkpoints stay. Reply: [RunReply.Done].
    record Unload(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Gets the timings of the newest operations. Reply: [RunReply.Timings].
    record GetTimings(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Gets the entries of the history with a higher number than `after`. If there is none, waits up to
    /// `waitMillis` for one; an empty reply says only that it is time to ask again. Reply:
    /// [RunReply.History].
    record GetHistory(String owner, long after, long waitMillis, ActorRef<RunReply> replyTo)
            implements RunCommand {
        /// The whole history, now.
        public GetHistory(String owner, ActorRef<RunReply> replyTo) {
            this(owner, 0, 0, replyTo);
        }
    }

    /// Gets what the operations after position `after` have reported, of those that are kept. If there is
    /// nothing, waits as [GetHistory] does. Reply: [RunReply.Metrics].
    record GetMetrics(String owner, long after, long waitMillis, ActorRef<RunReply> replyTo)
            implements RunCommand {}

    /// Tries the operation that was set aside again, with those that wait for it. Reply: [RunReply.Done].
    ///
    /// @param seq the operation that is meant: if it is not set aside, nothing happens, and the reply is the
    ///     same unless it was given up. So the command can be repeated. Empty: whichever is set aside; a
    ///     repetition may be about another one
    record Retry(String owner, Optional<Long> seq, ActorRef<RunReply> replyTo) implements RunCommand {
        /// Whichever is set aside.
        public Retry(String owner, ActorRef<RunReply> replyTo) {
            this(owner, Optional.empty(), replyTo);
        }
    }

    /// Fails the operation that was set aside, or the first one that waits for a store and was never executed
    /// to its end, or one that meets the same fault at each attempt of its replay; and those that would train
    /// past it. Reply: [RunReply.Done].
    ///
    /// @param seq the operation that is meant: if it has failed, nothing happens, and the reply is the same.
    ///     So the command can be repeated. Empty: as with [Retry]
    record GiveUp(String owner, Optional<Long> seq, ActorRef<RunReply> replyTo) implements RunCommand {
        /// Whichever waits.
        public GiveUp(String owner, ActorRef<RunReply> replyTo) {
            this(owner, Optional.empty(), replyTo);
        }
    }

    /// Tells the run how processes of a worker ended that executed its operations. No reply.
    record ReportDeath(DeathReport report) implements RunCommand {}

    /// Requests that the run leaves this node: it starts no new operation, its state is made durable, and its
    /// entity stops. It is started again, on any node, when it has something to execute. No reply.
    record Leave() implements RunCommand {}

    /// The replies.
    sealed interface RunReply extends Reply {
        /// The operation is in the journal.
        record Accepted(RequestId request) implements RunReply {}

        /// The outcome of an operation.
        record Completed(RequestId request, OperationResult result) implements RunReply {}

        /// The operation failed; this reply clears the run's error.
        record Failed(RequestId request, Fault fault) implements RunReply {}

        /// Not finished within the wait time.
        ///
        /// @param ahead operations accepted before it that are not finished either
        record Pending(RequestId request, int ahead) implements RunReply {}

        /// Not finished within the wait time, and the run cannot proceed until `why` is repaired; it retries
        /// automatically.
        record Stalled(RequestId request, Fault why) implements RunReply {}

        /// @param lora the adapter's shape now
        /// @param step optimizer steps known to be applied
        /// @param checkpoints newest version of each, oldest first
        /// @param closed whether the run was unloaded
        /// @param corrupted what of its state was found to be not finite, if no checkpoint was saved or
        ///     loaded since
        /// @param usage what its operations have used; empty: nothing
        /// @param waiting the operation that [GiveUp] is about now
        record Described(RunConfig config, LoraSpec lora, long step, long lastRequestMillis,
                List<CheckpointManifest> checkpoints, boolean closed, Optional<String> corrupted,
                Optional<RunUsage> usage, Optional<WaitingOperation> waiting)
                implements RunReply {}

        /// @param lora the adapter's shape now
        /// @param step optimizer steps known to be applied
        /// @param closed whether the run was unloaded
        record Summary(RunConfig config, LoraSpec lora, long step, boolean closed) implements RunReply {}

        /// A checkpoint.
        record Resolved(CheckpointManifest manifest) implements RunReply {}

        /// @param timings in the order in which the operations finished, the newest last
        record Timings(List<OperationTiming> timings) implements RunReply {}

        /// @param entries the newest entries of the history, the newest last
        record History(List<HistoryEntry> entries) implements RunReply {}

        /// @param operations in the order of their positions
        record Metrics(List<OperationMetrics> operations) implements RunReply {}

        /// The command was executed.
        record Done() implements RunReply {}

        /// The command was refused, and nothing was stored.
        record Refused(Reason reason, String message) implements RunReply {}
    }

    /// Why a command was refused. Constants are only added, at the end.
    enum Reason {
        NOT_FOUND, CONFLICT, CLOSED, TOO_MANY, UNAVAILABLE, INVALID,
        /// The run cannot be read from the journal.
        DAMAGED,
        /// A limit that waiting does not change.
        LIMIT,
        /// The weights are no longer kept.
        EXPIRED
    }
}
