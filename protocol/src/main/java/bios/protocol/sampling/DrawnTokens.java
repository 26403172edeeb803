package bios.protocol.sampling;

import bios.protocol.sampling.SampleResult.StopReason;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/// Tokens that a sequence has drawn while its request is not finished.
///
/// @param from how many tokens are before these
/// @param before [#digest] of the tokens before these; the receiver compares it with that of its tokens
/// @param logprobs of each token under the model itself
/// @param stopReason why the sequence ended with these tokens; empty: it has not, or there are more tokens
/// @param topkLogprobs at the position of each token the most likely tokens under the model itself, best
///     first; empty where the request does not want them
public record DrawnTokens(int from, int before, int[] tokens, float[] logprobs,
        Optional<StopReason> stopReason, Optional<List<List<TokenLogprob>>> topkLogprobs) {
    /// Tokens of a request that does not want the most likely ones.
    public DrawnTokens(int from, int before, int[] tokens, float[] logprobs,
            Optional<StopReason> stopReason) {
        this(from, before, tokens, logprobs, stopReason, Optional.empty());
    }

    /// A digest of the first `count` tokens.
    public static int digest(int[] tokens, int count) {
        return Arrays.hashCode(Arrays.copyOf(tokens, count));
    }
}
