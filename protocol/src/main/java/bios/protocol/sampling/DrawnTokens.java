package bios.protocol.sampling;

import java.util.Arrays;
import java.util.Optional;

/// Tokens that a sequence has drawn while its request is not finished.
///
/// @param from how many tokens are before these
/// @param before [#digest] of the tokens before these; the receiver compares it with that of its tokens
/// @param logprobs of each token under the model itself
/// @param stopReason why the sequence ended with these tokens; empty: it has not, or there are more tokens
public record DrawnTokens(int from, int before, int[] tokens, float[] logprobs,
        Optional<SampleResult.StopReason> stopReason) {
    /// A digest of the first `count` tokens.
    public static int digest(int[] tokens, int count) {
        return Arrays.hashCode(Arrays.copyOf(tokens, count));
    }
}
