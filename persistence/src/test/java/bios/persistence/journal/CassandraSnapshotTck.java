package bios.persistence.journal;

import bios.persistence.cassandra.TestCassandra;
import org.apache.pekko.persistence.CapabilityFlag;
import org.apache.pekko.persistence.japi.snapshot.JavaSnapshotStoreSpec;

/// Pekko's own tests of a snapshot store, for [CassandraSnapshotStore].
public final class CassandraSnapshotTck extends JavaSnapshotStoreSpec {
    private static final long serialVersionUID = 1;

    /// Called by ScalaTest.
    public CassandraSnapshotTck() {
        super(CassandraJournal.config().withFallback(TestCassandra.tables()));
    }

    @Override public CapabilityFlag supportsMetadata() {
        return CapabilityFlag.on();
    }
}
