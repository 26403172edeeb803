package bios.persistence.index;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.stored.StoredType;
import bios.protocol.stored.StoredTypes;
import java.util.List;

/// The stored types of the run index.
final class IndexTypes {
    static final StoredTypes TYPES = new StoredTypes(List.of(
            StoredType.first("run-summary", RunSummary.class),
            StoredType.first("checkpoint-manifest", CheckpointManifest.class)));

    private IndexTypes() {}
}
