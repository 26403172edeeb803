package bios.persistence.journal;

import bios.persistence.cassandra.TestCassandra;
import org.apache.pekko.persistence.CapabilityFlag;
import org.apache.pekko.persistence.japi.journal.JavaJournalSpec;

/// Pekko's own tests of a journal, for [CassandraJournal].
public final class CassandraJournalTck extends JavaJournalSpec {
    private static final long serialVersionUID = 1;

    /// Called by ScalaTest.
    public CassandraJournalTck() {
        super(CassandraJournal.config().withFallback(TestCassandra.tables()));
    }

    /// A write that is impossible fails; it is not rejected.
    @Override public CapabilityFlag supportsRejectingNonSerializableObjects() {
        return CapabilityFlag.off();
    }

    @Override public CapabilityFlag supportsMetadata() {
        return CapabilityFlag.on();
    }
}
