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
    /// @param logprobs of each token in the distribution that it was drawn from: of logits / temperature,
    ///     among the tokens that top-k and top-p keep (at temperature 0: the model's own)
    /// @param modelLogprobs of each token under the model itself, as training computes it; empty: `logprobs`
    ///     are these
    /// @param topkLogprobs at the position of each token the most likely tokens under the model itself, best
    ///     first
    public record Sequence(int[] tokens, float[] logprobs, StopReason stopReason,
            Optional<float[]> modelLogprobs, Optional<List<List<TokenLogprob>>> topkLogprobs) {
        /// A sequence without the likeliest tokens.
        public Sequence(int[] tokens, float[] logprobs, StopReason stopReason,
                Optional<float[]> modelLogprobs) {
            this(tokens, logprobs, stopReason, modelLogprobs, Optional.empty());
        }

        /// A sequence drawn from the model's own distribution.
        public Sequence(int[] tokens, float[] logprobs, StopReason stopReason) {
            this(tokens, logprobs, stopReason, Optional.empty());
        }
    }

    /// A token and its log-probability.
    public record TokenLogprob(int token, float logprob) {}

    /// Why a sequence ended.
    public enum StopReason { STOP, LENGTH }
}
