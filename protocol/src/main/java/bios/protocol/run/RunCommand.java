package bios.protocol.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.LoraSpec;
import bios.protocol.wire.Message;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// What the gateway asks of the entity of a training run. `owner` is the caller's account: an entity answers
/// [RunReply.Refused] with `not_found` to anybody but its owner.
public sealed interface RunCommand extends Message {
    /// Creates the run; asked again with the same configuration (but for the time) it gives the same answer.
    /// Answered by [RunReply.Described].
    record Create(RunConfig config, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Accepts an operation under the client's number; a number seen before gets its first answer. Answered
    /// by [RunReply.Accepted] once the journal holds it.
    ///
    /// @param digest SHA-256 of the encoded operation: tells a repetition from another
    ///     operation under an old number
    record Submit(String owner, long seq, StoredOperation operation, String digest, long nowMillis,
            ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Waits up to `waitMillis` for the outcome of `seq`. Answered by [RunReply.Completed],
    /// [RunReply.Failed], [RunReply.Pending] or [RunReply.Stalled].
    record Retrieve(String owner, long seq, long waitMillis, ActorRef<RunReply> replyTo)
            implements RunCommand {}

    /// Asks whether the run exists and belongs to `owner`. Answered by [RunReply.Done].
    record CheckOwner(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Describes run and checkpoints. Answered by [RunReply.Described].
    record Describe(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Finds a committed checkpoint. Answered by [RunReply.Resolved].
    record Resolve(String owner, CheckpointPath path, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Finds an ephemeral snapshot by content id. Answered by [RunReply.Resolved].
    record ResolveSnapshot(String owner, String contentId, ActorRef<RunReply> replyTo)
            implements RunCommand {}

    /// Deletes a checkpoint (all its versions). Answered by [RunReply.Done].
    record DeleteCheckpoint(String owner, CheckpointKind kind, CheckpointName name,
            ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Sets (or, when empty, removes) the time of expiry. Answered by [RunReply.Done].
    record SetExpiry(String owner, CheckpointKind kind, CheckpointName name, Optional<Long> expiresAtMillis,
            ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Frees the ephemeral snapshots of a session that has ended. Answered by [RunReply.Done].
    record ReleaseSnapshots(String owner, String session, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Ends the run for good: its live state goes, its checkpoints stay. Answered by [RunReply.Done].
    record Unload(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// How long the newest operations took. Answered by [RunReply.Timed].
    record Time(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// What happened to the run. Answered by [RunReply.Recounted].
    record Recount(String owner, ActorRef<RunReply> replyTo) implements RunCommand {}

    /// Asks the run to leave this node: it is given no new work, its state is made durable, and its home
    /// ends. It comes back, here or elsewhere, when it has something to do. Not answered.
    record Leave() implements RunCommand {}

    /// The answers.
    sealed interface RunReply extends Message {
        /// The operation is in the journal.
        record Accepted(RequestId request) implements RunReply {}

        /// The outcome of an operation.
        record Completed(RequestId request, OperationResult result) implements RunReply {}

        /// The operation failed; saying so clears the run's error.
        record Failed(RequestId request, Fault fault) implements RunReply {}

        /// Not finished within the wait.
        ///
        /// @param ahead operations accepted before it that are not finished either
        record Pending(RequestId request, int ahead) implements RunReply {}

        /// Not finished within the wait, and nothing of the run will be until `why` is mended; the run tries
        /// again by itself.
        record Stalled(RequestId request, Fault why) implements RunReply {}

        /// @param lora the adapter's shape now
        /// @param step optimizer steps known to be applied
        /// @param checkpoints newest version of each, oldest first
        /// @param closed whether the run was unloaded
        record Described(RunConfig config, LoraSpec lora, long step, long lastRequestMillis,
                List<CheckpointManifest> checkpoints, boolean closed) implements RunReply {}

        /// A checkpoint.
        record Resolved(CheckpointManifest manifest) implements RunReply {}

        /// @param timings in the order in which the operations were finished, the newest last
        record Timed(List<Timing> timings) implements RunReply {}

        /// @param entries the newest of its history, the newest last
        record Recounted(List<HistoryEntry> entries) implements RunReply {}

        /// It was done.
        record Done() implements RunReply {}

        /// It was not done, and nothing was stored.
        record Refused(Reason reason, String message) implements RunReply {}
    }

    /// Why a command was refused.
    enum Reason { NOT_FOUND, CONFLICT, CLOSED, TOO_MANY, UNAVAILABLE, INVALID }
}
