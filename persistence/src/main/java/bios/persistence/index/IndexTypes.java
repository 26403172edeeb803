package bios.persistence.index;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.stored.StoredType;
import bios.protocol.stored.StoredTypes;
import java.util.List;

/// What the run index stores, and under which names.
final class IndexTypes {
    static final StoredTypes TYPES = new StoredTypes(List.of(
            StoredType.first("run-summary", RunSummary.class),
            StoredType.first("checkpoint-manifest", CheckpointManifest.class)));

    private IndexTypes() {}
}
