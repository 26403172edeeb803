package bios.worker.engine;

import bios.protocol.model.ModelName;
import bios.worker.load.FingerprintCache;
import bios.worker.load.ModelFolders;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// Which base models an engine serves.
///
/// @param folders where they are
/// @param announced the models that the process has told the cluster it serves: each must be loaded, and no
///     other can be; empty: any that is found
/// @param cache knows the fingerprints of files that were read before
/// @param interval how often the folders are looked at again
public record ModelSource(ModelFolders folders, Optional<Set<ModelName>> announced, FingerprintCache cache,
        Duration interval) {
    /// These models and no others.
    public static ModelSource of(Map<ModelName, Path> named) {
        return new ModelSource(new ModelFolders(named, List.of()), Optional.empty(),
                FingerprintCache.NONE, Duration.ofSeconds(10));
    }

    /// Whether the process cannot start without the model.
    boolean required(ModelName name) {
        return folders.named().containsKey(name) || announced.filter(all -> all.contains(name)).isPresent();
    }

    /// Whether the process may serve the model.
    boolean allowed(ModelName name) {
        return announced.isEmpty() || required(name);
    }
}
