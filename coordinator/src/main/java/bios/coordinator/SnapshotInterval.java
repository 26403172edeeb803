package bios.coordinator;

/// When an entity whose state is a list of small records, each from one event, takes a snapshot: after at
/// least as many events as it has records. So snapshots write at most a small multiple of what events write,
/// however long the list is, and a recovery replays at most twice as many events as there are records.
public final class SnapshotInterval {
    private SnapshotInterval() {}

    /// Whether a snapshot is taken after event `sequenceNumber` of an entity with this many records.
    ///
    /// @param least events between two snapshots of a short list
    public static boolean isOver(long sequenceNumber, int least, int records) {
        long interval = least;
        while (interval < records) interval *= 2;
        return sequenceNumber % interval == 0;
    }
}
