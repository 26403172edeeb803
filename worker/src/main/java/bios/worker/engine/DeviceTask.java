package bios.worker.engine;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.Operation;
import java.util.Optional;

/// What the device does for a run, with all that it needs in memory.
sealed interface DeviceTask {
    /// Makes the run's state: a new adapter, or a recovery point's.
    record Open(LoraSpec lora, Optional<byte[]> recoveryPoint) implements DeviceTask {}

    /// Goes through the model in one or more passes.
    record Evaluate(Operation.ForwardBackward operation) implements DeviceTask {}

    record Optimize(Operation.OptimStep operation) implements DeviceTask {}

    /// Copies the state to the host, for a save or a recovery point.
    record Copy(Purpose purpose) implements DeviceTask {}

    /// @param optimizer the moments, when they are wanted
    record Load(Operation.LoadState operation, CheckpointManifest manifest, byte[] adapter,
            Optional<byte[]> optimizer) implements DeviceTask {}

    /// What a copy is for.
    sealed interface Purpose {
        record State(Operation.SaveState operation, long acceptedAtMillis) implements Purpose {}

        record Sampler(Operation.SaveSamplerWeights operation, long acceptedAtMillis) implements Purpose {}

        record Recovery() implements Purpose {}
    }

    /// The work in words, with its size.
    default String words() {
        return switch (this) {
            case Open(var lora, var point) -> "opening a run of rank " + lora.rank()
                    + point.map(bytes -> " from a recovery point of " + bytes.length + " bytes").orElse("");
            case Evaluate(var operation) -> (operation.forwardOnly() ? "forward of " : "forward_backward of ")
                    + operation.data().size() + " sequences, "
                    + operation.data().stream().mapToLong(d -> d.tokens().length).sum() + " tokens,";
            case Optimize _ -> "optim_step";
            case Copy _ -> "copying the run's state";
            case Load(var operation, _, var adapter, _) -> "loading " + operation.path() + " of "
                    + adapter.length + " bytes";
        };
    }
}
