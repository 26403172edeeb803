package bios.worker.engine;

import static bios.protocol.Require.require;

import bios.worker.sample.SamplerSettings;
import com.typesafe.config.Config;

/// Limits of an [Engine], as `bios.engine` in reference.conf explains them.
///
/// @param trainPassTokens about how many tokens of training go through one pass
/// @param activationBytes most bytes of activations that a pass keeps for its backward, per base model
/// @param longSequenceBytes the same for a pass of one sequence that is too long for these
/// @param copiesPerRun most states of a run that are being written at once
/// @param preparedPerRun operations of a run that are decoded ahead of their turn
/// @param adapterBytes bytes of adapters kept for sampling
/// @param sampler limits of decoding, per base model
/// @param maxQueuedSequences most sequences that wait or decode
public record EngineSettings(int trainPassTokens, long activationBytes, long longSequenceBytes,
        int copiesPerRun, int preparedPerRun, long adapterBytes, SamplerSettings sampler,
        int maxQueuedSequences) {
    public EngineSettings {
        require(trainPassTokens > 0 && activationBytes >= 0 && longSequenceBytes >= 0 && copiesPerRun > 0
                && preparedPerRun > 0 && adapterBytes > 0 && maxQueuedSequences > 0,
                "limits of an engine are positive");
    }

    /// Reads `bios.engine` of a program's configuration.
    public static EngineSettings of(Config program) {
        Config own = program.getConfig("bios.engine");
        Config sampler = own.getConfig("sampler");
        var decoding = new SamplerSettings(sampler.getBytes("cache-bytes"), sampler.getInt("pass-tokens"),
                sampler.getInt("max-sequences"), sampler.getInt("logit-rows"));
        return new EngineSettings(own.getInt("train-pass-tokens"), own.getBytes("activation-bytes"),
                own.getBytes("long-sequence-bytes"),
                own.getInt("copies-per-run"), own.getInt("prepared-per-run"), own.getBytes("adapter-bytes"),
                decoding, sampler.getInt("max-queued-sequences"));
    }
}
