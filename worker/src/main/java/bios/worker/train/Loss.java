package bios.worker.train;

import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.TensorData;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/// The losses of [LossFunction] and their derivatives by the log-probability, in double precision, for the
/// positions of several datums one after another. With r = exp(l - q):
///
/// | loss | value | dvalue/dl |
/// |---|---|---|
/// | cross_entropy | -w·l | -w |
/// | importance_sampling | -r·A | -r·A |
/// | ppo | -min(r·A, clip(r, low, high)·A) | -r·A where r·A is the smaller or r is not clipped, else 0 |
/// | cispo | -clip(r, low, high)·l·A | -clip(r, low, high)·A |
/// | dro | -(l·A - beta/2·(l - q)²) | -(A - beta·(l - q)) |
/// Positions with A = 0 (or w = 0) add nothing, whatever r is: prompts have q = 0, and 0 · ∞ must not be NaN.
/// Only dro's square counts there too.
final class Loss {
    private final LossFunction function;
    private final double low;
    private final double high;
    private final double beta;
    private final float[] weights;
    private final float[] sampled;
    private double sum;

    /// @param settings complete, see [LossFunction#settings]
    /// @param before what the sum begins with: that of the data before these
    Loss(LossFunction function, Map<String, Double> settings, List<Datum> data, double before) {
        this.sum = before;
        this.function = function;
        this.low = settings.getOrDefault("clip_low_threshold", 0.0);
        this.high = settings.getOrDefault("clip_high_threshold", 0.0);
        this.beta = settings.getOrDefault("beta", 0.0);
        this.weights = switch (function) {
            case CROSS_ENTROPY -> together(data, d -> d.lossInputs().containsKey("weights")
                    ? d.lossInputs().get("weights").floats() : ones(d.tokens().length));
            case IMPORTANCE_SAMPLING, PPO, CISPO, DRO ->
                    together(data, d -> d.lossInputs().get("advantages").floats());
        };
        this.sampled = switch (function) {
            case CROSS_ENTROPY -> new float[0];
            case IMPORTANCE_SAMPLING, PPO, CISPO, DRO ->
                    together(data, d -> d.lossInputs().get("logprobs").floats());
        };
    }

    /// Adds the loss of positions `from` and after to the sum; returns its derivative for each.
    float[] take(int from, float[] logprobs) {
        float[] gradient = new float[logprobs.length];
        for (int i = 0; i < logprobs.length; i++) {
            double weight = weights[from + i];
            if (weight == 0 && function != LossFunction.DRO) continue;
            switch (function) {
                case CROSS_ENTROPY -> {
                    sum -= weight * logprobs[i];
                    gradient[i] = (float) -weight;
                }
                case IMPORTANCE_SAMPLING -> {
                    double gain = Math.exp((double) logprobs[i] - sampled[from + i]) * weight;
                    sum -= gain;
                    gradient[i] = (float) -gain;
                }
                case PPO -> {
                    double ratio = Math.exp((double) logprobs[i] - sampled[from + i]);
                    double gain = ratio * weight;
                    double clipped = Math.clamp(ratio, low, high) * weight;
                    sum -= Math.min(gain, clipped);
                    gradient[i] = gain <= clipped ? (float) -gain : 0;
                }
                case CISPO -> {
                    double ratio = Math.exp((double) logprobs[i] - sampled[from + i]);
                    double factor = Math.clamp(ratio, low, high) * weight;
                    sum -= factor * logprobs[i];
                    gradient[i] = (float) -factor;
                }
                case DRO -> {
                    double away = (double) logprobs[i] - sampled[from + i];
                    sum -= weight * logprobs[i] - beta / 2 * away * away;
                    gradient[i] = (float) -(weight - beta * away);
                }
            }
        }
        return gradient;
    }

    /// The loss of all positions taken so far, and what was before.
    double sum() {
        return sum;
    }

    /// Σ w of cross_entropy; for the others the number of positions with an advantage.
    ///
    /// @param before what the sum begins with
    double weightSum(double before) {
        double total = before;
        for (float w : weights) total += function == LossFunction.CROSS_ENTROPY ? w : w == 0 ? 0 : 1;
        return total;
    }

    private static float[] ones(int n) {
        float[] ones = new float[n];
        Arrays.fill(ones, 1);
        return ones;
    }

    private static float[] together(List<Datum> data, Function<Datum, float[]> part) {
        float[] all = new float[data.stream().mapToInt(d -> d.tokens().length).sum()];
        int at = 0;
        for (Datum d : data) {
            float[] own = part.apply(d);
            System.arraycopy(own, 0, all, at, own.length);
            at += own.length;
        }
        return all;
    }

    /// `target_tokens` of all datums, one after another; checked before to be token ids.
    static int[] targets(List<Datum> data) {
        return data.stream().map(d -> d.lossInputs().get("target_tokens")).map(TensorData::longs)
                .flatMapToInt(ids -> Arrays.stream(ids).mapToInt(Math::toIntExact)).toArray();
    }
}
