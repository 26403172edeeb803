package bios.worker.train;

import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.TensorData;
import bios.worker.kernel.Losses;
import bios.worker.model.RunBatch.LossInputs;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;

/// The loss of a micro-batch on the host: its inputs for the targets of all datums, one after another, and
/// its sum. Formulas are in [Losses].
final class Loss {
    private final List<int[]> sequences;
    private final int[] targetsEach;
    private final int[] targets;
    private final LossInputs inputs;
    private final Losses losses;

    /// @param settings complete, see [LossFunction#settings]
    /// @param data checked before, see [LossFunction#check]
    Loss(LossFunction function, Map<String, Double> settings, List<Datum> data) {
        this.sequences = data.stream().map(Datum::tokens).toList();
        this.targetsEach = data.stream().mapToInt(Datum::targetsEach).toArray();
        this.targets = targets(data);
        float[] weights = switch (function) {
            case CROSS_ENTROPY -> concatenated(data, d -> d.lossInputs().containsKey("weights")
                    ? d.lossInputs().get("weights").floats() : ones(d.targets().elements()));
            case IMPORTANCE_SAMPLING, PPO, CISPO, DRO ->
                    concatenated(data, d -> d.lossInputs().get("advantages").floats());
        };
        float[] sampled = switch (function) {
            case CROSS_ENTROPY -> new float[targets.length];
            case IMPORTANCE_SAMPLING, PPO, CISPO, DRO ->
                    concatenated(data, d -> d.lossInputs().get("logprobs").floats());
        };
        this.inputs = new LossInputs(function, weights, sampled, bounds(data),
                settings.getOrDefault(LossFunction.LOW, 0.0), settings.getOrDefault(LossFunction.HIGH, 0.0),
                settings.getOrDefault("beta", 0.0));
        this.losses = new Losses(function, inputs.low(), inputs.high(), inputs.beta());
    }

    /// The datums' own clipping thresholds, if one has any; NaN for those without.
    private static Optional<LossInputs.Bounds> bounds(List<Datum> data) {
        boolean any = data.stream().map(Datum::lossInputs).anyMatch(inputs ->
                inputs.containsKey(LossFunction.LOW) || inputs.containsKey(LossFunction.HIGH));
        return any ? Optional.of(new LossInputs.Bounds(concatenated(data, d -> own(d, LossFunction.LOW)),
                concatenated(data, d -> own(d, LossFunction.HIGH)))) : Optional.empty();
    }

    private static float[] own(Datum datum, String bound) {
        TensorData given = datum.lossInputs().get(bound);
        if (given != null) return given.floats();
        float[] none = new float[datum.targets().elements()];
        Arrays.fill(none, Float.NaN);
        return none;
    }

    private Losses at(int i) {
        return inputs.bounds().isEmpty() ? losses
                : losses.withThresholds(inputs.bounds().get().low()[i], inputs.bounds().get().high()[i]);
    }

    /// Token ids of the datums.
    List<int[]> sequences() {
        return sequences;
    }

    /// Positions of all datums.
    int rows() {
        return sequences.stream().mapToInt(s -> s.length).sum();
    }

    /// Targets of each position, by datum.
    int[] targetsEach() {
        return targetsEach;
    }

    /// `target_tokens` of all datums, one after another.
    int[] targets() {
        return targets;
    }

    /// The inputs of the gradient on the device.
    LossInputs inputs() {
        return inputs;
    }

    /// The loss of all targets, added to `before` in their order.
    double sum(float[] logprobs, double before) {
        double sum = before;
        for (int i = 0; i < logprobs.length; i++)
            sum += at(i).value(logprobs[i], inputs.sampled()[i], inputs.weights()[i]);
        return sum;
    }

    /// The positions at which the log-probability of a target, its loss or the derivative of that is not
    /// finite in fp32, the type of the gradient.
    int notFinite(float[] logprobs) {
        int count = 0;
        int at = 0;
        for (int d = 0; d < targetsEach.length; d++)
            for (int row = 0; row < sequences.get(d).length; row++) {
                boolean finite = true;
                for (int k = 0; k < targetsEach[d]; k++) finite &= finite(at, logprobs[at++]);
                if (!finite) count++;
            }
        return count;
    }

    private boolean finite(int i, float logprob) {
        float loss = (float) at(i).value(logprob, inputs.sampled()[i], inputs.weights()[i]);
        float slope = (float) at(i).derivative(logprob, inputs.sampled()[i], inputs.weights()[i]);
        return Float.isFinite(logprob) && Float.isFinite(loss) && Float.isFinite(slope);
    }

    /// Adds the divergence of the sampling policy from the model at the positions that were sampled: those
    /// with a log-probability or an advantage, which prompts have not.
    void addTo(Divergence divergence, float[] logprobs) {
        for (int i = 0; i < logprobs.length; i++)
            if (inputs.sampled()[i] != 0 || inputs.weights()[i] != 0)
                divergence.add(inputs.sampled()[i], logprobs[i]);
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
        float[] all = new float[data.stream().mapToInt(d -> d.targets().elements()).sum()];
        int at = 0;
        for (Datum d : data) {
            float[] own = part.apply(d);
            System.arraycopy(own, 0, all, at, own.length);
            at += own.length;
        }
        return all;
    }

    static int[] targets(List<Datum> data) {
        return data.stream().map(Datum::targets).map(TensorData::longs)
                .flatMapToInt(ids -> Arrays.stream(ids).mapToInt(Math::toIntExact)).toArray();
    }
}
