package bios.coordinator.run;

import bios.protocol.checkpoint.BlobRef;
import java.util.List;

/// The stored content of a [ResultsPage].
record StoredResults(List<FinishedOperation> results) {
    StoredResults {
        results = List.copyOf(results);
    }

    /// The page that describes this content.
    ResultsPage page(BlobRef blob, boolean fetched) {
        return new ResultsPage(blob, results.getFirst().position(), results.getLast().position(),
                results.stream().mapToLong(FinishedOperation::seq).min().orElseThrow(),
                results.stream().mapToLong(FinishedOperation::seq).max().orElseThrow(), results.size(),
                results.stream().mapToLong(FinishedOperation::bytes).sum(), fetched);
    }
}
