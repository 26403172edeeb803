package bios.coordinator.owner;

import bios.protocol.stored.StoredSerializer;
import bios.protocol.stored.StoredType;
import bios.protocol.stored.StoredTypes;
import java.util.List;

/// Serializer of the events and snapshots of accounts.
public final class OwnerSerializer extends StoredSerializer {
    private static final int IDENTIFIER = 52_103;
    static final StoredTypes TYPES = new StoredTypes(List.of(
            StoredType.first("owner-sampling-counted", OwnerEvent.SamplingCounted.class),
            StoredType.first("owner-recorded", OwnerEvent.Recorded.class),
            StoredType.first("owner", OwnerRecords.class)));

    /// Called by Pekko.
    public OwnerSerializer() {
        super(IDENTIFIER, TYPES);
    }
}
