package bios.persistence.index;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunUsage;
import bios.protocol.run.StorageUse;
import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.List;
import java.util.Optional;

/// The fields of a run in listings.
///
/// @param lora the adapter's shape now
/// @param step optimizer steps known to be applied
/// @param lastRequestMillis when its last operation was accepted, epoch milliseconds
/// @param checkpoints newest version of each, oldest first
/// @param closed whether the run was unloaded
/// @param corrupted what of its state was found to be not finite, if no checkpoint was saved or loaded since
/// @param usage what its operations have used
/// @param stateBytes what it stores beside those checkpoints: its recovery point, results and operations
///     behind it, snapshots, and versions that were saved over but are in use
/// @param storage its named checkpoints by the hour, up to their last change
public record RunSummary(RunConfig config, LoraSpec lora, long step, long lastRequestMillis,
        List<CheckpointManifest> checkpoints, boolean closed,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<String> corrupted,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<RunUsage> usage,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Long> stateBytes,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<StorageUse> storage) {
    public RunSummary {
        checkpoints = List.copyOf(checkpoints);
        if (corrupted == null) corrupted = Optional.empty(); // absent in rows of an earlier build
        if (usage == null) usage = Optional.empty(); // the same
        if (stateBytes == null) stateBytes = Optional.empty(); // the same
        if (storage == null) storage = Optional.empty(); // the same
    }
}
