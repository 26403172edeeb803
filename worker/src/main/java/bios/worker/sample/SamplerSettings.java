package bios.worker.sample;

import bios.protocol.Require;
import bios.worker.device.DType;
import bios.worker.device.Device;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;

/// Limits of a [Sampler].
///
/// @param cacheBytes most bytes of cached keys and values of decoding sequences; [#AUTO]: by the size of the
///     device
/// @param cacheType of cached keys and values, [DType#F32] or [DType#BF16]; with fp32, log-probabilities are
///     bitwise those of the trainer
/// @param passTokens about how many tokens go through one pass: all decoding sequences, then parts of
///     prompts
/// @param maxSequences most sequences that decode at once
/// @param logitRows rows whose logits exist at once
public record SamplerSettings(long cacheBytes, DType cacheType, int passTokens, int maxSequences,
        int logitRows) {
    /// [#forDevice] decides.
    public static final long AUTO = 0;

    public SamplerSettings {
        Require.require(cacheBytes >= 0 && passTokens > 0 && maxSequences > 0 && logitRows > 0,
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
        long bytes = sampler.getString("cache-bytes").equals("auto") ? AUTO : sampler.getBytes("cache-bytes");
        return new SamplerSettings(bytes, type, sampler.getInt("pass-tokens"),
                sampler.getInt("max-sequences"), sampler.getInt("logit-rows"));
    }

    /// The same for a device: keys and values are bf16 where activations are, and [#AUTO] is 1 GiB on a CPU,
    /// an eighth of [#size] on a card.
    public SamplerSettings forDevice(Device device) {
        long bytes = cacheBytes != AUTO ? cacheBytes : device.ownMemory() ? size(device) / 8 : 1L << 30;
        return new SamplerSettings(bytes,
                device.activationType() == DType.F32 ? cacheType : device.activationType(), passTokens,
                maxSequences, logitRows);
    }

    /// The largest power of two that a device has in bytes of memory: the same on all cards of one kind,
    /// however much of each is free, so that what is derived from it is too.
    public static long size(Device device) {
        return Long.highestOneBit(device.memoryLimit());
    }

    /// With keys and values in fp32.
    public SamplerSettings(long cacheBytes, int passTokens, int maxSequences, int logitRows) {
        this(cacheBytes, DType.F32, passTokens, maxSequences, logitRows);
    }
}
