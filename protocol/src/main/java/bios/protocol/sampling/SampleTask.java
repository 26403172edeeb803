package bios.protocol.sampling;

import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.Arrays;
import java.util.Optional;

/// One accepted sampling request with all its inputs: any worker of the base model gives the same tokens for
/// it.
///
/// @param id unique among requests
/// @param adapter empty: the base model itself
/// @param prompt at least one token id
/// @param seed fixed when the request was accepted
/// @param promptLogprobs whether to score the prompt
/// @param topkPromptLogprobs how many most likely tokens to report per prompt position, 0 for none
/// @param topkSampleLogprobs how many most likely tokens to report per drawn token, 0 for none
public record SampleTask(String id, ModelName baseModel, Optional<Adapter> adapter, int[] prompt,
        SamplingParams params, int numSamples, long seed, boolean promptLogprobs, int topkPromptLogprobs,
        int topkSampleLogprobs) {
    /// The error code of a request that is not decoded any more because workers died while they decoded it.
    public static final String WORKER_LOST = "worker_lost";

    /// A request without the likeliest tokens at drawn positions.
    public SampleTask(String id, ModelName baseModel, Optional<Adapter> adapter, int[] prompt,
            SamplingParams params, int numSamples, long seed, boolean promptLogprobs,
            int topkPromptLogprobs) {
        this(id, baseModel, adapter, prompt, params, numSamples, seed, promptLogprobs, topkPromptLogprobs,
                0);
    }

    /// Immutable adapter weights.
    ///
    /// @param contentId SHA-256 of the adapter's bytes
    /// @param baseFingerprint as in its [bios.protocol.checkpoint.CheckpointManifest]
    public record Adapter(String contentId, LoraSpec lora, BlobRef blob,
            @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<String> baseFingerprint) {
        public Adapter {
            if (baseFingerprint == null) baseFingerprint = Optional.empty();
        }

        /// An adapter without a fingerprint.
        public Adapter(String contentId, LoraSpec lora, BlobRef blob) {
            this(contentId, lora, blob, Optional.empty());
        }

        /// The adapter of a checkpoint.
        public static Adapter of(CheckpointManifest manifest) {
            return new Adapter(manifest.contentId(), manifest.lora(), manifest.adapter(),
                    manifest.baseFingerprint());
        }
    }

    @Override public boolean equals(Object other) {
        return other instanceof SampleTask t && t.id.equals(id) && t.baseModel.equals(baseModel)
                && t.adapter.equals(adapter) && Arrays.equals(t.prompt, prompt) && t.params.equals(params)
                && t.numSamples == numSamples && t.seed == seed
                && t.promptLogprobs == promptLogprobs && t.topkPromptLogprobs == topkPromptLogprobs
                && t.topkSampleLogprobs == topkSampleLogprobs;
    }

    @Override public int hashCode() {
        return id.hashCode();
    }
}
