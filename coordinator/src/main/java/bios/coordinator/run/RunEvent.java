package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.DeathReport;
import bios.protocol.run.RunConfig;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.StoredOperation;
import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.List;
import java.util.Optional;

/// The events of a run. They are stored permanently: [RunStored] has their names, which never change; fields
/// are only added.
///
/// A `position` is an operation's place in the order of acceptance, from 1; times are epoch milliseconds.
/// Events that are part of the run's history have a [Stamp]; builds without histories stored events without
/// it.
public sealed interface RunEvent {
    /// The time and the node of an event.
    record Stamp(long timeMillis, String node) {}

    /// The run was created.
    record RunCreated(RunConfig config,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        RunCreated(RunConfig config) {
            this(config, Optional.empty());
        }
    }

    /// An operation was accepted.
    ///
    /// @param seq the client's sequence number
    /// @param digest SHA-256 of the encoded operation
    /// @param executed operations up to this position had been executed to their end; empty: not known
    /// @param rest present: it is a part of the batch of which a part has failed before, so the next
    ///     optimizer step fails. Absent in events of earlier builds, whose steps applied the rest
    record OperationAccepted(long position, long seq, StoredOperation operation, String digest,
            long timeMillis, @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Long> executed,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Boolean> rest)
            implements RunEvent {
        public OperationAccepted {
            executed = executed == null ? Optional.empty() : executed; // absent in events of earlier builds
            rest = rest == null ? Optional.empty() : rest; // the same
        }

        OperationAccepted(long position, long seq, StoredOperation operation, String digest,
                long timeMillis, Optional<Long> executed) {
            this(position, seq, operation, digest, timeMillis, executed, Optional.empty());
        }

        OperationAccepted(long position, long seq, StoredOperation operation, String digest,
                long timeMillis) {
            this(position, seq, operation, digest, timeMillis, Optional.empty());
        }
    }

    /// The checkpoint of a load is known; every execution of the load uses it.
    record LoadResolved(long position, CheckpointManifest manifest) implements RunEvent {}

    /// A load was executed.
    record LoadApplied(long position,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        LoadApplied(long position) {
            this(position, Optional.empty());
        }
    }

    /// An operation failed without effect; it is never executed again.
    ///
    /// @param drops present: it is an optimizer step, and the engine drops the gradient sum in its place,
    ///     also in a replay. Absent in events of earlier builds, which kept the sum
    /// @param rest present: the gradient sum holds the rest of a batch, so the next optimizer step fails,
    ///     whenever it is accepted. Absent in events of earlier builds, whose steps applied it once the
    ///     client knew of the failure
    record OperationFailed(long position, Fault why,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Boolean> drops,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Boolean> rest) implements RunEvent {
        public OperationFailed {
            drops = drops == null ? Optional.empty() : drops;
            rest = rest == null ? Optional.empty() : rest;
        }

        OperationFailed(long position, Fault why, Optional<Stamp> stamp) {
            this(position, why, stamp, Optional.empty(), Optional.empty());
        }

        OperationFailed(long position, Fault why) {
            this(position, why, Optional.empty());
        }
    }

    /// The client has received the failure; operations up to `upTo` were accepted before.
    record ErrorSeen(long upTo) implements RunEvent {}

    /// A save is durable.
    ///
    /// @param session the session with which an ephemeral snapshot ends; empty for named checkpoints
    record CheckpointCommitted(long position, CheckpointManifest manifest, Optional<String> session,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        CheckpointCommitted(long position, CheckpointManifest manifest, Optional<String> session) {
            this(position, manifest, session, Optional.empty());
        }
    }

    /// All versions of a checkpoint were deleted.
    ///
    /// @param retained adapters of versions that stay for runs that may have to load them again
    record CheckpointDeleted(CheckpointKind kind, CheckpointName name,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp,
            @JsonInclude(JsonInclude.Include.NON_EMPTY) List<BlobId> retained) implements RunEvent {
        CheckpointDeleted(CheckpointKind kind, CheckpointName name, List<BlobId> retained) {
            this(kind, name, Optional.empty(), retained);
        }

        public CheckpointDeleted {
            retained = retained == null ? List.of() : List.copyOf(retained); // absent in earlier builds
        }
    }

    /// The expiry time of a checkpoint was set or removed.
    record ExpirySet(CheckpointKind kind, CheckpointName name, Optional<Long> expiresAtMillis,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        ExpirySet(CheckpointKind kind, CheckpointName name, Optional<Long> expiresAtMillis) {
            this(kind, name, expiresAtMillis, Optional.empty());
        }
    }

    /// A checkpoint was made readable by every account, or by its owner only.
    record PublicationSet(CheckpointKind kind, CheckpointName name, boolean published,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        PublicationSet(CheckpointKind kind, CheckpointName name, boolean published) {
            this(kind, name, published, Optional.empty());
        }
    }

    /// Operations up to `position` have used this much since those that were counted before; none of them is
    /// executed again.
    record UsageCounted(long position, long trainedTokens, long evaluatedTokens, long deviceNanos,
            long timeMillis) implements RunEvent {}

    /// The run was moved to a project, or out of any.
    record ProjectSet(Optional<String> project) implements RunEvent {}

    /// The checkpoints that were expired at `timeMillis` were removed.
    ///
    /// @param retained adapters of versions that stay for runs that may have to load them again
    record CheckpointsExpired(long timeMillis,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp,
            @JsonInclude(JsonInclude.Include.NON_EMPTY) List<BlobId> retained) implements RunEvent {
        CheckpointsExpired(long timeMillis, List<BlobId> retained) {
            this(timeMillis, Optional.empty(), retained);
        }

        public CheckpointsExpired {
            retained = retained == null ? List.of() : List.copyOf(retained); // absent in earlier builds
        }
    }

    /// The snapshots of a session were released.
    record SnapshotsReleased(String session) implements RunEvent {}

    /// The state after `position` is durable: operations up to it are never executed again.
    ///
    /// @param step optimizer steps applied in it
    /// @param results the results as an earlier build stored them, instead of `pages`
    /// @param pages results up to `position` that clients may still retrieve, oldest first
    record RecoveryPointReached(long position, BlobRef state, long step, LoraSpec lora,
            Optional<BlobRef> results,
            @JsonInclude(JsonInclude.Include.NON_EMPTY) List<ResultsPage> pages,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        public RecoveryPointReached {
            pages = pages == null ? List.of() : List.copyOf(pages); // absent in events of an earlier build
        }

        RecoveryPointReached(long position, BlobRef state, long step, LoraSpec lora,
                Optional<BlobRef> results, List<ResultsPage> pages) {
            this(position, state, step, lora, results, pages, Optional.empty());
        }

        /// A recovery point with all results in one blob.
        RecoveryPointReached(long position, BlobRef state, long step, LoraSpec lora,
                Optional<BlobRef> results) {
            this(position, state, step, lora, results, List.of(), Optional.empty());
        }
    }

    /// A worker that executed operations of the run has ended without a shutdown, or a count of such ends is
    /// over ([bios.protocol.run.DeathReport]).
    record WorkerDied(DeathReport report,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        WorkerDied(DeathReport report) {
            this(report, Optional.empty());
        }
    }

    /// An operation is not tried again by itself, and what was accepted after it waits. It has no outcome.
    record OperationSetAside(long position, Fault why,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        OperationSetAside(long position, Fault why) {
            this(position, why, Optional.empty());
        }
    }

    /// The owner has requested that the operation that was set aside is tried again.
    record OperationRetried(long position,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        OperationRetried(long position) {
            this(position, Optional.empty());
        }
    }

    /// Not written by this build: a replay from `position` on has started.
    record ReplayBegan(long position) implements RunEvent {}

    /// Not written by this build: the exclusive replay of an operation has started.
    record OperationAttempted(long position,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        OperationAttempted(long position) {
            this(position, Optional.empty());
        }
    }

    /// Not written by this build: all replayed operations have an outcome.
    record ReplayFinished(long position) implements RunEvent {}

    /// Blobs that nothing refers to were found in the store: a write without its event, or a submission that
    /// was refused.
    record BlobsAbandoned(List<BlobId> blobs) implements RunEvent {}

    /// Weights to which no name refers, and that nobody uses, are no longer kept.
    ///
    record WeightsReleased(List<Unnamed> weights) implements RunEvent {}

    /// Weights to which no name refers.
    ///
    /// @param session of a snapshot; empty: versions that others have replaced
    record Unnamed(BlobId adapter, Optional<String> session) {}

    /// Blobs that nothing refers to were deleted.
    record BlobsFreed(List<BlobId> blobs) implements RunEvent {}

    /// The run was unloaded.
    record RunClosed(long timeMillis,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Stamp> stamp) implements RunEvent {
        RunClosed(long timeMillis) {
            this(timeMillis, Optional.empty());
        }
    }

    /// An entity has read all events before this one and is responsible for the run from now on. An earlier
    /// entity that was wrongly considered dead cannot persist anything any more: its next sequence number is
    /// used.
    record EntityBegan(long timeMillis) implements RunEvent {}

    /// An entry of the history that does not follow from another event.
    record HistoryRecorded(@JsonProperty("note") HistoryEntry entry) implements RunEvent {}

    /// The event with `stamp`, if events of its type have a stamp and it has none.
    default RunEvent stamped(Stamp now) {
        Optional<Stamp> stamp = Optional.of(now);
        return switch (this) {
            case RunCreated(var config, var before) -> new RunCreated(config, before.or(() -> stamp));
            case LoadApplied(var at, var before) -> new LoadApplied(at, before.or(() -> stamp));
            case OperationFailed(var at, var why, var before, var drops, var rest) ->
                    new OperationFailed(at, why, before.or(() -> stamp), drops, rest);
            case CheckpointCommitted(var at, var manifest, var session, var before) ->
                    new CheckpointCommitted(at, manifest, session, before.or(() -> stamp));
            case CheckpointDeleted(var kind, var name, var before, var retained) ->
                    new CheckpointDeleted(kind, name, before.or(() -> stamp), retained);
            case ExpirySet(var kind, var name, var at, var before) ->
                    new ExpirySet(kind, name, at, before.or(() -> stamp));
            case PublicationSet(var kind, var name, var published, var before) ->
                    new PublicationSet(kind, name, published, before.or(() -> stamp));
            case CheckpointsExpired(var time, var before, var retained) ->
                    new CheckpointsExpired(time, before.or(() -> stamp), retained);
            case RecoveryPointReached(var at, var state, var step, var lora, var results, var pages,
                    var before) -> new RecoveryPointReached(at, state, step, lora, results, pages,
                            before.or(() -> stamp));
            case WorkerDied(var report, var before) -> new WorkerDied(report, before.or(() -> stamp));
            case OperationSetAside(var at, var why, var before) ->
                    new OperationSetAside(at, why, before.or(() -> stamp));
            case OperationRetried(var at, var before) -> new OperationRetried(at, before.or(() -> stamp));
            case RunClosed(var time, var before) -> new RunClosed(time, before.or(() -> stamp));
            case OperationAccepted _, LoadResolved _, ErrorSeen _, SnapshotsReleased _, ReplayFinished _,
                    ReplayBegan _, OperationAttempted _, BlobsAbandoned _, WeightsReleased _, BlobsFreed _,
                    HistoryRecorded _, EntityBegan _, ProjectSet _, UsageCounted _ ->
                    this;
        };
    }
}
