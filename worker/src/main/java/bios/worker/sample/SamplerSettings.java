package bios.worker.sample;

import bios.protocol.Require;
import bios.worker.device.DType;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;

/// Limits of a [Sampler].
///
/// @param cacheBytes most bytes of cached keys and values of decoding sequences
/// @param cacheType of cached keys and values, [DType#F32] or [DType#BF16]; with fp32, log-probabilities are
///     bitwise those of the trainer
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

    /// Reads `bios.engine.sampler` of a program's configuration.
    public static SamplerSettings of(Config sampler) {
        String name = sampler.getString("cache-dtype");
        DType type = switch (name) {
            case "float32" -> DType.F32;
            case "bfloat16" -> DType.BF16;
            default -> throw new ConfigException.BadValue(sampler.origin(), "bios.engine.sampler.cache-dtype",
                    name + " is neither float32 nor bfloat16");
        };
        return new SamplerSettings(sampler.getBytes("cache-bytes"), type, sampler.getInt("pass-tokens"),
                sampler.getInt("max-sequences"), sampler.getInt("logit-rows"));
    }

    /// The same for a model with such activations: keys and values that are bf16 are kept as bf16.
    public SamplerSettings forActivations(DType activations) {
        return activations == DType.F32 ? this
                : new SamplerSettings(cacheBytes, activations, passTokens, maxSequences, logitRows);
    }

    /// With keys and values in fp32.
    public SamplerSettings(long cacheBytes, int passTokens, int maxSequences, int logitRows) {
        this(cacheBytes, DType.F32, passTokens, maxSequences, logitRows);
    }
}
