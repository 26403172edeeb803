package bios.protocol.run;

import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.LoraSpec;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// An operation of a run. The operations of a run take effect in the order in which they were accepted.
public sealed interface Operation {
    /// Adds the gradient of the summed loss to the run's gradient sum (or, with `forwardOnly`, only evaluates
    /// it).
    record ForwardBackward(List<Datum> data, LossFunction loss, Map<String, Double> settings,
            boolean forwardOnly) implements Operation {
        public ForwardBackward {
            data = List.copyOf(data);
            settings = Map.copyOf(settings);
        }
    }

    /// Applies the gradient sum with AdamW and clears it; without `params` the run's current settings are
    /// used.
    record OptimStep(Optional<AdamParams> params) implements Operation {}

    /// Saves weights, moments, step and settings under a name.
    record SaveState(CheckpointName name, String userMetadata, Optional<Long> ttlSeconds)
            implements Operation {}

    /// Saves weights only, under a name or, without one, as a snapshot that lives as long as `session`.
    record SaveSamplerWeights(Optional<CheckpointName> name, Optional<Long> ttlSeconds,
            Optional<String> session) implements Operation {}

    /// Replaces weights (and, with `optimizer`, moments, step and settings) by a checkpoint's; drops the
    /// gradient sum.
    record LoadState(CheckpointPath path, boolean optimizer) implements Operation {}

    /// Replaces the weights by an adapter that was made elsewhere and uploaded; drops the gradient sum. The
    /// moments and the steps are zero then.
    ///
    /// @param name what the adapter is called
    /// @param adapter safetensors with PEFT's names of tensors: input of this operation, as a large batch is
    /// @param lora its shape
    record LoadUpload(CheckpointName name, BlobRef adapter, LoraSpec lora) implements Operation {}
}
