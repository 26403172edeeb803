package bios.persistence.journal;

/// The events of one atomic write have more bytes than a row of the journal may have.
public final class EventTooLarge extends RuntimeException {
    private static final long serialVersionUID = 1;

    /// @param limit of `bios.storage.cassandra.max-row-bytes`
    EventTooLarge(String persistenceId, long sequenceNr, long bytes, long limit) {
        super("events from " + sequenceNr + " of " + persistenceId + " take " + bytes
                + " bytes together, more"
                + " than the " + limit + " of bios.storage.cassandra.max-row-bytes; store large contents as"
                + " blobs, or raise it (Cassandra's own limit is half of its commitlog_segment_size)");
    }
}
