package bios.persistence.journal;

import org.apache.pekko.persistence.CapabilityFlag;
import org.apache.pekko.persistence.japi.journal.JavaJournalSpec;

/// Pekko's own tests of a journal, for [JdbcJournal].
public final class JdbcJournalTck extends JavaJournalSpec {
    private static final long serialVersionUID = 1;

    /// Called by ScalaTest.
    public JdbcJournalTck() {
        super(JdbcJournalTest.freshDatabase());
    }

    /// A write that is impossible fails; it is not rejected.
    @Override public CapabilityFlag supportsRejectingNonSerializableObjects() {
        return CapabilityFlag.off();
    }

    @Override public CapabilityFlag supportsMetadata() {
        return CapabilityFlag.on();
    }
}
