package bios.persistence.journal;

/// Two incarnations of one entity wrote the same sequence number: this one was second, and nothing of it was
/// written. It must recover from the journal.
public final class JournalConflict extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param sequenceNr the number that both wrote
    /// @param ours id of the writer that is refused
    /// @param others what is known of the other writer
    JournalConflict(String persistenceId, long sequenceNr, String ours, String others) {
        super("event " + sequenceNr + " of " + persistenceId + ", written by writer " + ours
                + ", is refused: " + others
                        + "; the entity runs twice, or still ran after it was moved. This"
                + " incarnation stops and recovers from the journal");
    }
}
