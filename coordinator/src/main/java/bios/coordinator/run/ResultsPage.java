package bios.coordinator.run;

import bios.protocol.checkpoint.BlobRef;

/// A blob with results of a run ([StoredResults]), and the ranges by which a result is found.
///
/// @param first the first position in the page
/// @param last the last position
/// @param firstSeq the smallest sequence number in the page
/// @param lastSeq the largest sequence number
/// @param bytes the approximate memory of the results, bytes
/// @param fetched whether their client has fetched all results
public record ResultsPage(BlobRef blob, long first, long last, long firstSeq, long lastSeq, int count,
        long bytes, boolean fetched) {
    /// A page of an earlier build: one blob, of which nothing else is known.
    static ResultsPage unknown(BlobRef blob, long last) {
        return new ResultsPage(blob, 1, last, 0, Long.MAX_VALUE, 1, blob.bytes(), false);
    }

    /// The same page, marked as fetched.
    ResultsPage asFetched() {
        return new ResultsPage(blob, first, last, firstSeq, lastSeq, count, bytes, true);
    }

    /// Whether the page may contain the result of `seq`.
    boolean mayContain(long seq) {
        return firstSeq <= seq && seq <= lastSeq;
    }
}
