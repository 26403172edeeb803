package bios.worker.sample;

import bios.protocol.Require;
import bios.worker.device.DType;

/// Limits of a [Sampler].
///
/// @param cacheBytes most bytes of cached keys and values of decoding sequences
/// @param cacheType of cached keys and values, [DType#F32] or [DType#BF16]; with fp32 log-probabilities have
///     the bits of the trainer's
/// @param passTokens about how many tokens go through one pass: all decoding sequences, then parts of
///     prompts
/// @param maxSequences most sequences that decode at once
/// @param logitRows rows whose logits exist at once
public record SamplerSettings(long cacheBytes, DType cacheType, int passTokens, int maxSequences,
        int logitRows) {
    public SamplerSettings {
        Require.require(cacheBytes > 0 && passTokens > 0 && maxSequences > 0 && logitRows > 0,
                "limits of a sampler are positive");
        Require.require(cacheType == DType.F32 || cacheType == DType.BF16, "a cache of %s", cacheType);
    }

    /// With keys and values in fp32.
    public SamplerSettings(long cacheBytes, int passTokens, int maxSequences, int logitRows) {
        this(cacheBytes, DType.F32, passTokens, maxSequences, logitRows);
    }
}
