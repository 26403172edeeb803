package bios.worker.engine;

import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.Operation;
import bios.worker.adapter.StateSnapshot;
import java.util.Optional;

/// One operation of a run, decoded: what the device does for it.
sealed interface DeviceTask {
    /// Makes the run's state: a new adapter's, or a recovery point's. Streamed.
    record Open(LoraSpec lora, Optional<BlobRef> recoveryPoint) implements DeviceTask {}

    /// Replaces the run's state by a checkpoint's. Streamed.
    ///
    /// @param optimizer the moments, where the operation asks for them
    record Load(Operation.LoadState operation, CheckpointManifest manifest, Optional<BlobRef> optimizer)
            implements DeviceTask {}

    /// Takes one or more passes through the model.
    record Evaluate(Operation.ForwardBackward operation) implements DeviceTask {}

    /// Applies the gradient sum.
    record Optimize(Operation.OptimStep operation) implements DeviceTask {}

    /// Drops the gradient sum, in the place of a step that failed because the sum lacks a part.
    record DropGradient() implements DeviceTask {}

    /// Copies the state, for a save or a recovery point.
    record Copy(Purpose purpose) implements DeviceTask {}

    /// Whether the state comes from a stream: the run waits for it, the device does not.
    default boolean streamed() {
        return this instanceof Open || this instanceof Load;
    }

    /// What a copy is for.
    sealed interface Purpose {
        record State(Operation.SaveState operation, long acceptedAtMillis) implements Purpose {}

        record Sampler(Operation.SaveSamplerWeights operation, long acceptedAtMillis) implements Purpose {}

        record Recovery() implements Purpose {}

        /// The part of the state that is copied.
        default StateSnapshot.Content content() {
            return switch (this) {
                case State _ -> StateSnapshot.Content.CHECKPOINT;
                case Sampler _ -> StateSnapshot.Content.WEIGHTS;
                case Recovery() -> StateSnapshot.Content.RECOVERY_POINT;
            };
        }
    }

    /// The operation in words, with its size, for messages.
    default String words() {
        return switch (this) {
            case Open(var lora, var point) -> "opening a run of rank " + lora.rank()
                    + point.map(blob -> " from a recovery point of " + blob.bytes() + " bytes").orElse("");
            case Evaluate(var operation) -> (operation.forwardOnly() ? "forward of " : "forward_backward of ")
                    + operation.data().size() + " sequences, "
                    + operation.data().stream().mapToLong(d -> d.tokens().length).sum() + " tokens,";
            case Optimize _ -> "optim_step";
            case DropGradient() -> "dropping the gradient sum";
            case Copy _ -> "copying the run's state";
            case Load(var operation, var manifest, _) -> "loading " + operation.path() + " of "
                    + manifest.bytes() + " bytes";
        };
    }
}
