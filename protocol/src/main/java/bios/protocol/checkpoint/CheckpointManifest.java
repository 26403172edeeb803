package bios.protocol.checkpoint;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.RunId;
import java.util.Optional;

/// All that is known of one committed version of a checkpoint; its blobs hold the tensors.
///
/// @param name empty for an ephemeral snapshot, which lives as long as its session
/// @param contentId SHA-256 of the adapter's bytes: what a sampling client is pinned to
/// @param adapter safetensors with PEFT's tensor names
/// @param optimizer safetensors of the moments (`<tensor>.exp_avg`, `<tensor>.exp_avg_sq`);
///     empty for sampler weights
/// @param step optimizer steps applied so far
/// @param settings the run's current optimizer settings
/// @param optimizerType always `adamw`; a load refuses others
/// @param userMetadata the user's own JSON object, `{}` when none was given
/// @param parent the path that the run was loaded from
/// @param createdAtMillis when the save was accepted, epoch milliseconds
/// @param expiresAtMillis when it may be deleted by itself, epoch milliseconds; empty: never
public record CheckpointManifest(RunId run, CheckpointKind kind, Optional<CheckpointName> name,
        ModelName baseModel, LoraSpec lora, String contentId, BlobRef adapter, Optional<BlobRef> optimizer,
        long step, AdamParams settings, String optimizerType, String userMetadata, Optional<String> parent,
        long createdAtMillis, Optional<Long> expiresAtMillis) {

    /// Bytes of all blobs together.
    public long bytes() {
        return adapter.bytes() + optimizer.map(BlobRef::bytes).orElse(0L);
    }

    /// The path under which users know it; empty for an ephemeral snapshot.
    public Optional<CheckpointPath> path() {
        return name.map(n -> new CheckpointPath(run, Optional.of(kind), n));
    }
}
