package bios.persistence.journal;

/// Two incarnations of one entity wrote the same event: this one came second, and nothing of it was written.
/// It must recover from the journal before it goes on.
public final class JournalConflict extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param sequenceNr the event that both wrote
    /// @param ours the writer that is refused
    /// @param others what is known of the other: its writer, or how far it came
    JournalConflict(String persistenceId, long sequenceNr, String ours, String others) {
        super("event " + sequenceNr + " of " + persistenceId + ", written by writer " + ours
                + ", is refused: " + others
                        + "; the entity runs twice, or ran on after it was moved. This one"
                + " stops and recovers from the journal");
    }
}
