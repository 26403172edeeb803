package bios.persistence.index;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.RunConfig;
import java.util.List;

/// The fields of a run in listings.
///
/// @param lora the adapter's shape now
/// @param step optimizer steps known to be applied
/// @param lastRequestMillis when its last operation was accepted, epoch milliseconds
/// @param checkpoints newest version of each, oldest first
/// @param closed whether the run was unloaded
public record RunSummary(RunConfig config, LoraSpec lora, long step, long lastRequestMillis,
        List<CheckpointManifest> checkpoints, boolean closed) {
    public RunSummary {
        checkpoints = List.copyOf(checkpoints);
    }
}
