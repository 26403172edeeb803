package bios.protocol.run;

import bios.protocol.checkpoint.CheckpointManifest;
import java.util.List;
import java.util.Map;

/// The result of an operation.
public sealed interface OperationResult {
    /// @param logprobs for each datum, the learner's log-probabilities of its targets, N floats
    /// @param metrics by `name:reduction`; always `loss:sum`, `tokens:sum` and `weights:sum`
    record Evaluated(List<float[]> logprobs, Map<String, Double> metrics) implements OperationResult {}

    /// @param step optimizer steps applied so far, this one included
    /// @param metrics `grad_norm` (before clipping), `learning_rate`
    record Stepped(long step, Map<String, Double> metrics) implements OperationResult {}

    /// A save is durable.
    record Saved(CheckpointManifest manifest) implements OperationResult {}

    /// @param path the loaded path in the `bios` scheme
    record Loaded(String path, long step) implements OperationResult {}
}
