package bios.protocol.sampling;

import bios.protocol.Invalid;
import java.util.List;
import java.util.Optional;

/// How tokens are sampled: logits / temperature, then the `topK` largest, then the smallest set with
/// probability of at least `topP`; temperature 0 takes the largest.
///
/// @param maxTokens the maximum number of tokens; empty: up to the context length
/// @param seed makes the tokens reproducible; sequence i uses the random stream (seed, i)
/// @param stopStrings text that ends a sequence; it is part of the result
/// @param stopTokens tokens that end a sequence, in addition to the model's stop tokens; the stop token is
///     part of the result
/// @param temperature 0 or more
/// @param topK -1 for all
/// @param topP above 0, at most 1
public record SamplingParams(Optional<Integer> maxTokens, Optional<Long> seed, List<String> stopStrings,
        List<Integer> stopTokens, double temperature, int topK, double topP) {
    /// Alone among the stop tokens: nothing ends a sequence but its length, not even the model's stop tokens.
    /// No vocabulary has this token, so a build that does not know its meaning never meets it.
    public static final int NO_STOP = Integer.MAX_VALUE;

    public SamplingParams {
        stopStrings = List.copyOf(stopStrings);
        stopTokens = List.copyOf(stopTokens);
        if (maxTokens.isPresent() && maxTokens.get() < 1)
            throw new Invalid("sampling_params.max_tokens", maxTokens.get() + " is below 1");
        if (!(temperature >= 0) || Double.isInfinite(temperature))
            throw new Invalid("sampling_params.temperature",
                    temperature + " is not a finite number of at least 0");
        if (topK != -1 && topK < 1)
            throw new Invalid("sampling_params.top_k", topK + " is neither -1 (all) nor at least 1");
        if (!(topP > 0 && topP <= 1))
            throw new Invalid("sampling_params.top_p", topP + " is outside 0 (exclusive) to 1 (inclusive)");
        if (stopStrings.size() + stopTokens.size() > 64)
            throw new Invalid("sampling_params.stop", "has more than 64 entries");
        for (String s : stopStrings)
            if (s.isEmpty()) throw new Invalid("sampling_params.stop", "holds an empty string");
        for (int t : stopTokens)
            if (t < 0) throw new Invalid("sampling_params.stop", "holds the negative token " + t);
    }

    /// Whether nothing ends a sequence but its length.
    public boolean neverStops() {
        return stopTokens.equals(List.of(NO_STOP));
    }

    /// Whether the log-probabilities of the drawn tokens are the model's own: at temperature 1 without top-k
    /// and top-p, and at temperature 0.
    public boolean drawsFromModel() {
        return temperature == 0 || temperature == 1 && topK == -1 && topP == 1;
    }
}
