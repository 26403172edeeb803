package bios.persistence.journal;

import org.apache.pekko.persistence.CapabilityFlag;
import org.apache.pekko.persistence.japi.snapshot.JavaSnapshotStoreSpec;

/// Pekko's own tests of a snapshot store, for [JdbcSnapshotStore].
public final class JdbcSnapshotTck extends JavaSnapshotStoreSpec {
    private static final long serialVersionUID = 1;

    /// Called by ScalaTest.
    public JdbcSnapshotTck() {
        super(JdbcJournalTest.freshDatabase());
    }

    @Override public CapabilityFlag supportsMetadata() {
        return CapabilityFlag.on();
    }
}
