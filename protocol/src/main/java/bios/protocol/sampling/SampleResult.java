package bios.protocol.sampling;

import java.util.List;
import java.util.Optional;

/// The result of a sampling request.
///
/// @param promptLogprobs log p(prompt[i] | prompt[<i]) at temperature 1, NaN at position 0
/// @param topkPromptLogprobs per prompt position the most likely tokens, best first; empty at position 0
public record SampleResult(List<Sequence> sequences, Optional<float[]> promptLogprobs,
        Optional<List<List<TokenLogprob>>> topkPromptLogprobs) {
    /// @param tokens the sampled tokens, including the stop token
    /// @param logprobs of each token under the temperature-scaled distribution (at temperature 0: unscaled)
    public record Sequence(int[] tokens, float[] logprobs, StopReason stopReason) {}

    /// A token and its log-probability.
    public record TokenLogprob(int token, float logprob) {}

    /// Why a sequence ended.
    public enum StopReason { STOP, LENGTH }
}
