package bios.persistence.index;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.stored.StoredType;
import bios.protocol.stored.StoredTypes;
import bios.protocol.stored.UnreadableRecord;
import java.util.List;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The stored types of the run index.
final class IndexTypes {
    static final StoredTypes TYPES = new StoredTypes(List.of(
            StoredType.first("run-summary", RunSummary.class),
            StoredType.first("checkpoint-manifest", CheckpointManifest.class)));

    private static final Logger LOG = LoggerFactory.getLogger(IndexTypes.class);

    private IndexTypes() {}

    /// Reads an entry; empty if it is damaged, so that the others of a page are listed. Its run writes it
    /// again with its next change.
    static <T> Optional<T> read(Class<T> type, String manifest, byte[] bytes) {
        try {
            return Optional.of(type.cast(TYPES.read(manifest, bytes)));
        } catch (UnreadableRecord | ClassCastException damaged) {
            LOG.warn("an entry of the run index is damaged and left out: {}", damaged.getMessage());
            return Optional.empty();
        }
    }
}
