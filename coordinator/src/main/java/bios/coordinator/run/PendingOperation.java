package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.OperationKind;
import bios.protocol.run.StoredOperation;
import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.annotation.JsonTypeInfo;
import java.util.Optional;

/// An accepted operation after the last recovery point: a recovery executes it again, unless its outcome
/// makes that unnecessary.
///
/// @param position its place in the order of acceptance, from 1
/// @param seq the client's sequence number
/// @param digest SHA-256 of the encoded operation
/// @param outcome its outcome in the journal
public record PendingOperation(long position, long seq, StoredOperation operation, String digest,
        long acceptedAtMillis,
        Outcome outcome) {
    /// The outcome of an operation in the journal. Losses and steps are not stored, because executing the
    /// operation again gives the same.
    @JsonTypeInfo(use = JsonTypeInfo.Id.NAME, property = "is")
    @JsonSubTypes({@JsonSubTypes.Type(value = Outcome.Open.class, name = "open"),
        @JsonSubTypes.Type(value = Outcome.Resolved.class, name = "resolved"),
        @JsonSubTypes.Type(value = Outcome.Applied.class, name = "applied"),
        @JsonSubTypes.Type(value = Outcome.Committed.class, name = "committed"),
        @JsonSubTypes.Type(value = Outcome.Failed.class, name = "failed"),
        @JsonSubTypes.Type(value = Outcome.Dropped.class, name = "dropped")})
    public sealed interface Outcome {
        /// No outcome yet.
        record Open() implements Outcome {}

        /// A load whose checkpoint is known.
        record Resolved(CheckpointManifest manifest) implements Outcome {}

        /// A load that was executed.
        record Applied(CheckpointManifest manifest) implements Outcome {}

        /// A save that is durable.
        record Committed(CheckpointManifest manifest) implements Outcome {}

        /// The operation failed.
        record Failed(Fault why) implements Outcome {}

        /// An optimizer step that failed because the gradient sum lacks a part; the engine drops the sum in
        /// its place.
        record Dropped(Fault why) implements Outcome {}
    }

    /// The kind of the operation.
    public OperationKind kind() {
        return operation.kind();
    }

    /// Whether the operation writes a checkpoint.
    boolean saves() {
        return saves(kind());
    }

    /// Whether operations of this kind write a checkpoint.
    static boolean saves(OperationKind kind) {
        return kind == OperationKind.SAVE_STATE || kind == OperationKind.SAVE_SAMPLER_WEIGHTS;
    }

    /// Whether a recovery does not execute it again: it failed without leaving anything to do, or it is a
    /// save that is durable.
    public boolean settled() {
        return outcome instanceof Outcome.Failed || outcome instanceof Outcome.Committed;
    }

    /// Why it failed, if it did.
    Optional<Fault> fault() {
        return switch (outcome) {
            case Outcome.Failed(var why) -> Optional.of(why);
            case Outcome.Dropped(var why) -> Optional.of(why);
            case Outcome.Open _, Outcome.Resolved _, Outcome.Applied _, Outcome.Committed _ ->
                    Optional.empty();
        };
    }

    /// Whether a recovery executes the operation itself, and so reads its input.
    boolean needsInput() {
        return !settled() && fault().isEmpty();
    }

    /// What the engine executes for it: the operation, or what a failed step leaves to do.
    StoredOperation executed() {
        return outcome instanceof Outcome.Dropped(var why)
                ? new StoredOperation.Refused(operation.kind(), why) : operation;
    }

    PendingOperation with(Outcome now) {
        return new PendingOperation(position, seq, operation, digest, acceptedAtMillis, now);
    }
}
