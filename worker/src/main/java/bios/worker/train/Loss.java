package bios.worker.train;

import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.TensorData;
import bios.worker.kernel.Losses;
import bios.worker.model.RunBatch.LossInputs;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/// The loss of a micro-batch on the host: its inputs for the positions of all datums, one after another, and
/// its sum. Formulas are in [Losses].
final class Loss {
    private final List<int[]> sequences;
    private final int[] targets;
    private final LossInputs inputs;

    /// @param settings complete, see [LossFunction#settings]
    /// @param data checked before, see [LossFunction#check]
    Loss(LossFunction function, Map<String, Double> settings, List<Datum> data) {
        this.sequences = data.stream().map(Datum::tokens).toList();
        this.targets = targets(data);
        float[] weights = switch (function) {
            case CROSS_ENTROPY -> concatenated(data, d -> d.lossInputs().containsKey("weights")
                    ? d.lossInputs().get("weights").floats() : ones(d.tokens().length));
            case IMPORTANCE_SAMPLING, PPO, CISPO, DRO ->
                    concatenated(data, d -> d.lossInputs().get("advantages").floats());
        };
        float[] sampled = switch (function) {
            case CROSS_ENTROPY -> new float[targets.length];
            case IMPORTANCE_SAMPLING, PPO, CISPO, DRO ->
                    concatenated(data, d -> d.lossInputs().get("logprobs").floats());
        };
        this.inputs = new LossInputs(function, weights, sampled,
                settings.getOrDefault("clip_low_threshold", 0.0),
                settings.getOrDefault("clip_high_threshold", 0.0), settings.getOrDefault("beta", 0.0));
    }

    /// Token ids of the datums.
    List<int[]> sequences() {
        return sequences;
    }

    /// `target_tokens` of all datums, one after another.
    int[] targets() {
        return targets;
    }

    /// The inputs of the gradient on the device.
    LossInputs inputs() {
        return inputs;
    }

    /// The loss of all positions, added to `before` in their order.
    double sum(float[] logprobs, double before) {
        Losses losses = new Losses(inputs.function(), inputs.low(), inputs.high(), inputs.beta());
        double sum = before;
        for (int i = 0; i < logprobs.length; i++)
            sum += losses.value(logprobs[i], inputs.sampled()[i], inputs.weights()[i]);
        return sum;
    }

    /// The positions whose log-probability, loss or derivative of the loss is not finite in fp32, the type of
    /// the gradient.
    int notFinite(float[] logprobs) {
        Losses losses = new Losses(inputs.function(), inputs.low(), inputs.high(), inputs.beta());
        int count = 0;
        for (int i = 0; i < logprobs.length; i++) {
            float loss = (float) losses.value(logprobs[i], inputs.sampled()[i], inputs.weights()[i]);
            float slope = (float) losses.derivative(logprobs[i], inputs.sampled()[i], inputs.weights()[i]);
            if (!Float.isFinite(logprobs[i]) || !Float.isFinite(loss) || !Float.isFinite(slope)) count++;
        }
        return count;
    }

    /// Σ w of cross_entropy; for the others the number of positions with an advantage; added to `before`.
    double weightSum(double before) {
        double total = before;
        for (float w : inputs.weights())
            total += inputs.function() == LossFunction.CROSS_ENTROPY ? w : w == 0 ? 0 : 1;
        return total;
    }

    private static float[] ones(int n) {
        float[] ones = new float[n];
        Arrays.fill(ones, 1);
        return ones;
    }

    private static float[] concatenated(List<Datum> data, Function<Datum, float[]> part) {
        float[] all = new float[data.stream().mapToInt(d -> d.tokens().length).sum()];
        int at = 0;
        for (Datum d : data) {
            float[] own = part.apply(d);
            System.arraycopy(own, 0, all, at, own.length);
            at += own.length;
        }
        return all;
    }

    static int[] targets(List<Datum> data) {
        return data.stream().map(d -> d.lossInputs().get("target_tokens")).map(TensorData::longs)
                .flatMapToInt(ids -> Arrays.stream(ids).mapToInt(Math::toIntExact)).toArray();
    }
}
