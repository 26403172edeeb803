package bios.coordinator.run;

import bios.protocol.checkpoint.BlobRef;

/// A blob with results of a run, [StoredResults], and what is needed to find a result in it.
///
/// @param first the first position in it
/// @param last the last
/// @param firstSeq the least of the clients' numbers in it
/// @param lastSeq the greatest of them
/// @param bytes about how many bytes they take in memory
/// @param fetched whether their client has had all of them
public record ResultsPage(BlobRef blob, long first, long last, long firstSeq, long lastSeq, int count,
        long bytes, boolean fetched) {
    /// What an earlier build stored: one blob, of which nothing else is known.
    static ResultsPage unknown(BlobRef blob, long last) {
        return new ResultsPage(blob, 1, last, 0, Long.MAX_VALUE, 1, blob.bytes(), false);
    }

    /// The same page, all of it fetched.
    ResultsPage read() {
        return new ResultsPage(blob, first, last, firstSeq, lastSeq, count, bytes, true);
    }

    /// Whether the result of `seq` may be in it.
    boolean mayHold(long seq) {
        return firstSeq <= seq && seq <= lastSeq;
    }
}
