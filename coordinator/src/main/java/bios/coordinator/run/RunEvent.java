package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.RunConfig;
import bios.protocol.run.StoredOperation;
import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.List;
import java.util.Optional;

/// What happened to a run. Kept for ever: [RunStored] names each, names never change, fields are only added.
///
/// A `position` is an operation's place in the run's line, from 1; times are epoch milliseconds.
public sealed interface RunEvent {
    /// The run began.
    record RunCreated(RunConfig config) implements RunEvent {}

    /// An operation took its place in the line.
    ///
    /// @param seq the client's number
    /// @param digest SHA-256 of the encoded operation
    record OperationAccepted(long position, long seq, StoredOperation operation, String digest,
            long timeMillis) implements RunEvent {}

    /// What a load will load, whenever it is executed.
    record LoadResolved(long position, CheckpointManifest manifest) implements RunEvent {}

    /// A load took effect.
    record LoadApplied(long position) implements RunEvent {}

    /// An operation failed and changed nothing; it is never executed again.
    record OperationFailed(long position, Fault why) implements RunEvent {}

    /// The client was told of the failure; operations up to `upTo` were accepted before that.
    record ErrorSeen(long upTo) implements RunEvent {}

    /// A save is durable.
    ///
    /// @param session whose life an ephemeral snapshot shares; empty for named checkpoints
    record CheckpointCommitted(long position, CheckpointManifest manifest, Optional<String> session)
            implements RunEvent {}

    /// All versions of a checkpoint were deleted.
    record CheckpointDeleted(CheckpointKind kind, CheckpointName name) implements RunEvent {}

    /// A checkpoint's time of expiry was set or removed.
    record ExpirySet(CheckpointKind kind, CheckpointName name, Optional<Long> expiresAtMillis)
            implements RunEvent {}

    /// Checkpoints whose time was over at `timeMillis` went.
    record CheckpointsExpired(long timeMillis) implements RunEvent {}

    /// The snapshots of a session went.
    record SnapshotsReleased(String session) implements RunEvent {}

    /// The state behind `position` is durable: what lies before is never executed again.
    ///
    /// @param step optimizer steps applied in it
    /// @param results what an earlier build stored in place of `pages`
    /// @param pages results up to there that may still be asked for, oldest first
    record RecoveryPointReached(long position, BlobRef state, long step, LoraSpec lora,
            Optional<BlobRef> results,
            @JsonInclude(JsonInclude.Include.NON_EMPTY) List<ResultsPage> pages) implements RunEvent {
        public RecoveryPointReached {
            pages = pages == null ? List.of() : List.copyOf(pages);     // absent: an earlier build's
        }

        /// With all results in one blob.
        RecoveryPointReached(long position, BlobRef state, long step, LoraSpec lora,
                Optional<BlobRef> results) {
            this(position, state, step, lora, results, List.of());
        }
    }

    /// After a failure, an operation is about to be executed alone, so that one that
    /// kills its worker is found.
    record OperationAttempted(long position) implements RunEvent {}

    /// All that a failure had undone is done again.
    record ReplayFinished(long position) implements RunEvent {}

    /// Blobs that nothing refers to were deleted.
    record BlobsFreed(List<BlobId> blobs) implements RunEvent {}

    /// The run was unloaded.
    record RunClosed(long timeMillis) implements RunEvent {}

    /// An entity has read all before this and answers for the run from now on: one that is only believed
    /// dead can write no more, since its next number is taken.
    record EntityBegan(long timeMillis) implements RunEvent {}
}
