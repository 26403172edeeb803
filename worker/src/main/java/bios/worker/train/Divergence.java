package bios.worker.train;

import bios.protocol.run.LossFunction;
import java.util.Map;

/// Estimates of KL(sampler ‖ trainer) over sampled tokens (Schulman 2020), with d = q - l the sampler's
/// log-probability less the model's: the mean of d, of d²/2, and of exp(-d) - 1 + d, which is never negative
/// and has less variance than the first. They are 0 where both are the same policy.
final class Divergence {
    private double first;
    private double second;
    private double third;
    private long count;

    /// @param sampled log-probability under the sampling policy
    /// @param logprob the same under the model
    void add(double sampled, double logprob) {
        double d = sampled - logprob;
        first += d;
        second += d * d / 2;
        third += Math.expm1(-d) + d;
        count++;
    }

    /// Adds the means, if the loss knows the sampling policy; 0 where nothing was sampled.
    void report(LossFunction loss, Map<String, Double> metrics) {
        if (loss == LossFunction.CROSS_ENTROPY) return;
        double n = Math.max(1, count);
        metrics.put("kl_sample_train_v1:mean", NonFinite.reported(first / n));
        metrics.put("kl_sample_train_v2:mean", NonFinite.reported(second / n));
        metrics.put("kl_sample_train_v3:mean", NonFinite.reported(third / n));
    }
}
