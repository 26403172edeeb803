package bios.protocol.checkpoint;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.RunId;
import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.Optional;

/// The metadata of one committed version of a checkpoint; the tensors are in its blobs.
///
/// @param name empty for an ephemeral snapshot, which lives as long as its session
/// @param contentId SHA-256 of the adapter's bytes; identifies the weights for sampling clients
/// @param adapter safetensors with PEFT's tensor names
/// @param optimizer safetensors of the moments (`<tensor>.exp_avg`, `<tensor>.exp_avg_sq`);
///     empty for sampler weights
/// @param step optimizer steps applied so far
/// @param settings the run's current optimizer settings
/// @param optimizerType always `adamw`; others are refused on loading
/// @param userMetadata the user's own JSON object, `{}` when none was given
/// @param parent the path that the run was loaded from
/// @param createdAtMillis when the save was accepted, epoch milliseconds
/// @param expiresAtMillis when it is deleted automatically, epoch milliseconds; empty: never
/// @param baseFingerprint of the base model that the weights belong to; empty in checkpoints of builds
///     without fingerprints
/// @param published whether every account may read it; empty: only its owner
public record CheckpointManifest(RunId run, CheckpointKind kind, Optional<CheckpointName> name,
        ModelName baseModel, LoraSpec lora, String contentId, BlobRef adapter, Optional<BlobRef> optimizer,
        long step, AdamParams settings, String optimizerType, String userMetadata, Optional<String> parent,
        long createdAtMillis, Optional<Long> expiresAtMillis,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<String> baseFingerprint,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Boolean> published) {
    public CheckpointManifest {
        if (baseFingerprint == null) baseFingerprint = Optional.empty();
        if (published == null) published = Optional.empty(); // absent in earlier builds
    }

    /// A checkpoint that only its owner may read.
    public CheckpointManifest(RunId run, CheckpointKind kind, Optional<CheckpointName> name,
            ModelName baseModel, LoraSpec lora, String contentId, BlobRef adapter,
            Optional<BlobRef> optimizer, long step, AdamParams settings, String optimizerType,
            String userMetadata, Optional<String> parent, long createdAtMillis,
            Optional<Long> expiresAtMillis, Optional<String> baseFingerprint) {
        this(run, kind, name, baseModel, lora, contentId, adapter, optimizer, step, settings, optimizerType,
                userMetadata, parent, createdAtMillis, expiresAtMillis, baseFingerprint, Optional.empty());
    }

    /// A checkpoint without a fingerprint.
    public CheckpointManifest(RunId run, CheckpointKind kind, Optional<CheckpointName> name,
            ModelName baseModel, LoraSpec lora, String contentId, BlobRef adapter,
            Optional<BlobRef> optimizer, long step, AdamParams settings, String optimizerType,
            String userMetadata, Optional<String> parent, long createdAtMillis,
            Optional<Long> expiresAtMillis) {
        this(run, kind, name, baseModel, lora, contentId, adapter, optimizer, step, settings, optimizerType,
                userMetadata, parent, createdAtMillis, expiresAtMillis, Optional.empty());
    }

    /// Whether every account may read it.
    public boolean readableByAll() {
        return published.orElse(false);
    }

    /// The same checkpoint, expiring at a time.
    public CheckpointManifest expiring(Optional<Long> atMillis) {
        return new CheckpointManifest(run, kind, name, baseModel, lora, contentId, adapter, optimizer, step,
                settings, optimizerType, userMetadata, parent, createdAtMillis, atMillis, baseFingerprint,
                published);
    }

    /// The same checkpoint, readable by every account or by its owner only.
    public CheckpointManifest published(boolean now) {
        return new CheckpointManifest(run, kind, name, baseModel, lora, contentId, adapter, optimizer, step,
                settings, optimizerType, userMetadata, parent, createdAtMillis, expiresAtMillis,
                baseFingerprint, Optional.of(now).filter(readable -> readable));
    }

    /// Total bytes of its blobs.
    public long bytes() {
        return adapter.bytes() + optimizer.map(BlobRef::bytes).orElse(0L);
    }

    /// Its path; empty for an ephemeral snapshot.
    public Optional<CheckpointPath> path() {
        return name.map(n -> new CheckpointPath(run, Optional.of(kind), n));
    }
}
