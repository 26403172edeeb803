package bios.protocol.run;

import bios.protocol.checkpoint.CheckpointManifest;
import java.util.List;
import java.util.Map;

/// The result of an operation.
public sealed interface OperationResult {
    /// The result of a forward or forward-backward pass.
    ///
    /// @param logprobs one array per datum: the log-probability that the model gives to each of the datum's
    ///     N target tokens
    /// @param metrics values by `name:reduction`; always contains `loss:sum`, `tokens:sum` and `weights:sum`
    record Evaluated(List<float[]> logprobs, Map<String, Double> metrics) implements OperationResult {}

    /// The result of a pass with several target tokens for a position.
    ///
    /// @param values the log-probabilities of a datum's `[N, K]` targets row by row, and the metrics
    /// @param columns K of each datum; 0: its targets are a vector
    record EvaluatedMatrix(Evaluated values, List<Integer> columns) implements OperationResult {}

    /// The result of an optimizer step.
    ///
    /// @param step optimizer steps applied so far, including this one
    /// @param metrics `grad_norm` (before clipping), `learning_rate`
    record Stepped(long step, Map<String, Double> metrics) implements OperationResult {}

    /// The result of a save; the checkpoint is durable.
    record Saved(CheckpointManifest manifest) implements OperationResult {}

    /// The result of a load.
    ///
    /// @param path the loaded path in the `bios` scheme
    /// @param step optimizer steps applied to the loaded weights; later steps of the run continue from it
    record Loaded(String path, long step) implements OperationResult {}
}
