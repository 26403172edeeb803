package bios.worker.sample;

import bios.protocol.Require;

/// Limits of a [Sampler].
///
/// @param cacheBytes most bytes of keys and values of decoding sequences
/// @param passTokens about how many tokens go through one pass: all decoding sequences, then parts of prompts
/// @param maxSequences most sequences that decode at once
/// @param logitRows rows whose logits exist at once
public record SamplerSettings(long cacheBytes, int passTokens, int maxSequences, int logitRows) {
    public SamplerSettings {
        Require.require(cacheBytes > 0 && passTokens > 0 && maxSequences > 0 && logitRows > 0,
                "limits of a sampler are positive");
    }
}
