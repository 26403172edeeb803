package bios.coordinator.run;

import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.persistence.blob.BlobStore;
import bios.protocol.checkpoint.BlobScope;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The pages of a run's results that are written for its next recovery point. A small last page is replaced
/// by a page that contains its results and the new ones, so that there are few pages.
///
/// @param scope of the new page, [BlobScope#results]
/// @param pages pages that do not change, oldest first
/// @param last a page to which the fresh results are added
/// @param lastInMemory the results of that page, if they are in memory
/// @param fresh results that are in no page yet
/// @param fetched whether all results of the written page have been fetched
record ResultsPages(String scope, List<ResultsPage> pages, Optional<ResultsPage> last,
        Optional<List<FinishedOperation>> lastInMemory, List<FinishedOperation> fresh, boolean fetched) {

    /// The pages that follow `before` for a recovery point at `position`.
    static ResultsPages next(String scope, ResultCache results, List<ResultsPage> before, long position) {
        List<ResultsPage> pages = new ArrayList<>(before.stream().map(results::refreshed).toList());
        List<FinishedOperation> fresh = results.unsaved(position);
        boolean extended = !pages.isEmpty() && !fresh.isEmpty() && results.acceptsMore(pages.getLast());
        Optional<ResultsPage> last = extended ? Optional.of(pages.removeLast()) : Optional.empty();
        boolean fetched = results.allFetched(fresh) && last.map(ResultsPage::fetched).orElse(true);
        return new ResultsPages(scope, List.copyOf(pages), last, last.flatMap(results::inMemory), fresh,
                fetched);
    }

    /// Writes the new page and returns all pages, oldest first. Blocks.
    List<ResultsPage> write(BlobStore blobs) {
        if (fresh.isEmpty()) return pages;
        List<FinishedOperation> all = new ArrayList<>(lastInMemory
                .or(() -> last.map(page -> read(blobs, page))).orElse(List.of()));
        all.addAll(fresh);
        var page = new StoredResults(all);
        List<ResultsPage> written = new ArrayList<>(pages);
        written.add(page.page(blobs.put(scope, RunStored.encode(page)), fetched));
        return written;
    }

    /// The results of a page; empty if the blob is missing or damaged. Blocks.
    static List<FinishedOperation> read(BlobStore blobs, ResultsPage page) {
        try {
            return RunStored.decode(blobs.readSmall(page.blob(), BlobStore.MAX_ARRAY_BYTES)).results();
        } catch (BlobMissing | BlobDamaged lost) {
            return List.of();
        }
    }
}
