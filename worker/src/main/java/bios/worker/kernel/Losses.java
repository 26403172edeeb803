package bios.worker.kernel;

import bios.protocol.run.LossFunction;

/// The losses of [LossFunction] for one position, and their derivatives by its log-probability, in double
/// precision. With l the log-probability, q the one under the sampling policy, w the weight, A the advantage
/// and r = exp(l - q):
///
/// | loss | value | dvalue/dl |
/// |---|---|---|
/// | cross_entropy | -w·l | -w |
/// | importance_sampling | -r·A | -r·A |
/// | ppo | -min(r·A, clip(r, low, high)·A) | -r·A where r·A is the smaller or r is not clipped, else 0 |
/// | cispo | -clip(r, low, high)·l·A | -clip(r, low, high)·A |
/// | dro | -(l·A - beta/2·(l - q)²) | -(A - beta·(l - q)) |
///
/// Positions with A = 0 (or w = 0) contribute 0 for any r: prompts have q = 0, and 0 · ∞ must not be NaN.
/// Only the square term of dro contributes there too. The loss of a datum is the sum of its values in the
/// order of positions.
///
/// @param low lower clipping threshold (ppo, cispo)
/// @param high upper clipping threshold (ppo, cispo)
/// @param beta strength of the square (dro)
public record Losses(LossFunction function, double low, double high, double beta) {
    /// The same with a position's own thresholds; NaN: the loss has this one.
    public Losses withThresholds(float ownLow, float ownHigh) {
        return new Losses(function, Float.isNaN(ownLow) ? low : ownLow, Float.isNaN(ownHigh) ? high : ownHigh,
                beta);
    }

    /// The loss of a position.
    ///
    /// @param logprob log-probability of the target
    /// @param sampled the same under the sampling policy; not used by cross_entropy
    /// @param weight weight of cross_entropy, advantage of the others
    public double value(double logprob, double sampled, double weight) {
        if (addsNothing(weight)) return 0;
        return switch (function) {
            case CROSS_ENTROPY -> -(weight * logprob);
            case IMPORTANCE_SAMPLING -> -(ratio(logprob, sampled) * weight);
            case PPO -> {
                double ratio = ratio(logprob, sampled);
                yield -Math.min(ratio * weight, Math.clamp(ratio, low, high) * weight);
            }
            case CISPO -> -(Math.clamp(ratio(logprob, sampled), low, high) * weight * logprob);
            case DRO -> {
                double difference = logprob - sampled;
                yield -(weight * logprob - beta / 2 * difference * difference);
            }
        };
    }

    /// The derivative of [#value] by `logprob`.
    public double derivative(double logprob, double sampled, double weight) {
        if (addsNothing(weight)) return 0;
        return switch (function) {
            case CROSS_ENTROPY -> -weight;
            case IMPORTANCE_SAMPLING -> -(ratio(logprob, sampled) * weight);
            case PPO -> {
                double ratio = ratio(logprob, sampled);
                double gain = ratio * weight;
                yield gain <= Math.clamp(ratio, low, high) * weight ? -gain : 0;
            }
            case CISPO -> -(Math.clamp(ratio(logprob, sampled), low, high) * weight);
            case DRO -> -(weight - beta * (logprob - sampled));
        };
    }

    private boolean addsNothing(double weight) {
        return weight == 0 && function != LossFunction.DRO;
    }

    private static double ratio(double logprob, double sampled) {
        return Math.exp(logprob - sampled);
    }
}
