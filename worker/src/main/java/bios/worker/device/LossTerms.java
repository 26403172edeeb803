package bios.worker.device;

import bios.protocol.run.LossFunction;
import java.util.Optional;

/// The inputs of a loss other than the log-probabilities of its targets; [bios.worker.kernel.Losses] defines
/// the formulas.
///
/// @param weights `[T, 1]`: weights of cross_entropy, advantages of the others
/// @param sampled `[T, 1]`: log-probabilities under the sampling policy; empty for cross_entropy
/// @param low lower clipping threshold (ppo, cispo)
/// @param high upper clipping threshold (ppo, cispo)
/// @param beta strength of the square (dro)
public record LossTerms(LossFunction function, Tensor weights, Optional<Tensor> sampled, double low,
        double high,
        double beta) {
    /// The terms of rows `from` to `from + count`.
    public LossTerms rows(int from, int count) {
        return new LossTerms(function, weights.rows(from, count), sampled.map(t -> t.rows(from, count)), low,
                high, beta);
    }
}
