package bios.client;

import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.TensorData;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/// Sequences of one forward or forward-backward pass, and their loss.
public record Batch(List<Datum> data, LossFunction loss, Map<String, Double> settings) {
    public Batch {
        data = List.copyOf(data);
        settings = Map.copyOf(settings);
    }

    /// A batch with the default settings of its loss.
    public static Batch of(LossFunction loss, List<Datum> data) {
        return new Batch(data, loss, Map.of());
    }

    /// Sequences whose every token is predicted from those before it, with cross-entropy.
    public static Batch ofTexts(List<int[]> texts) {
        return of(LossFunction.CROSS_ENTROPY, texts.stream().map(text -> completion(text, 1)).toList());
    }

    /// A sequence for cross-entropy of which only the tokens from `from` on count, from 1: the answer to a
    /// prompt of `from` tokens.
    public static Datum completion(int[] tokens, int from) {
        var weights = new float[tokens.length - 1];
        Arrays.fill(weights, from - 1, weights.length, 1);
        return new Datum(Arrays.copyOf(tokens, tokens.length - 1),
                Map.of("target_tokens", targets(tokens), "weights", TensorData.of(weights)));
    }

    /// A sampled answer for a policy gradient: each of its tokens has the same advantage.
    ///
    /// @param logprobs of the answer's tokens, as the sampler has reported them
    public static Datum rollout(int[] prompt, int[] answer, float[] logprobs, float advantage) {
        int[] all = Arrays.copyOf(prompt, prompt.length + answer.length);
        System.arraycopy(answer, 0, all, prompt.length, answer.length);
        var sampled = new float[all.length - 1];
        var advantages = new float[all.length - 1];
        System.arraycopy(logprobs, 0, sampled, prompt.length - 1, answer.length);
        Arrays.fill(advantages, prompt.length - 1, advantages.length, advantage);
        return new Datum(Arrays.copyOf(all, all.length - 1), Map.of("target_tokens", targets(all),
                "logprobs", TensorData.of(sampled), "advantages", TensorData.of(advantages)));
    }

    private static TensorData targets(int[] tokens) {
        return TensorData.of(Arrays.stream(tokens).skip(1).asLongStream().toArray());
    }

    Operation.ForwardBackward operation(boolean forwardOnly) {
        return new Operation.ForwardBackward(data, loss, settings, forwardOnly);
    }
}
