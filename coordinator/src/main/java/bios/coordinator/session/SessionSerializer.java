package bios.coordinator.session;

import bios.protocol.stored.StoredSerializer;
import bios.protocol.stored.StoredType;
import bios.protocol.stored.StoredTypes;
import java.util.List;

/// Serializer of the events and snapshots of sessions.
public final class SessionSerializer extends StoredSerializer {
    private static final int IDENTIFIER = 52_102;
    static final StoredTypes TYPES = new StoredTypes(List.of(
            StoredType.first("session-opened", SessionEvent.SessionOpened.class),
            StoredType.first("session-run-added", SessionEvent.RunAdded.class),
            StoredType.first("session-sampler-pinned", SessionEvent.SamplerPinned.class),
            StoredType.first("session-sampler-dropped", SessionEvent.SamplerDropped.class),
            StoredType.first("session-ended", SessionEvent.SessionEnded.class),
            StoredType.first("session-project-set", SessionEvent.ProjectSet.class),
            StoredType.first("session", Session.class)));

    /// Called by Pekko.
    public SessionSerializer() {
        super(IDENTIFIER, TYPES);
    }
}
