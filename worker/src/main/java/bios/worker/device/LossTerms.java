package bios.worker.device;

import bios.protocol.run.LossFunction;
import java.util.Optional;

/// The inputs of a loss other than the log-probabilities of its targets; [bios.worker.kernel.Losses] defines
/// the formulas.
///
/// @param weights `[T, K]`: weights of cross_entropy, advantages of the others
/// @param sampled `[T, K]`: log-probabilities under the sampling policy; empty for cross_entropy
/// @param bounds a position's own thresholds; empty: all positions have `low` and `high`
/// @param low lower clipping threshold (ppo, cispo)
/// @param high upper clipping threshold (ppo, cispo)
/// @param beta strength of the square (dro)
public record LossTerms(LossFunction function, Tensor weights, Optional<Tensor> sampled,
        Optional<Bounds> bounds, double low, double high, double beta) {
    /// Thresholds of each position, `[T, K]`; NaN: `low` or `high` of the loss.
    public record Bounds(Tensor low, Tensor high) {
        private Bounds rows(int from, int count) {
            return new Bounds(low.rows(from, count), high.rows(from, count));
        }
    }

    /// The terms of rows `from` to `from + count`.
    public LossTerms rows(int from, int count) {
        return new LossTerms(function, weights.rows(from, count), sampled.map(t -> t.rows(from, count)),
                bounds.map(b -> b.rows(from, count)), low, high, beta);
    }
}
