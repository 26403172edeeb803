package bios.persistence.index;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunId;
import java.util.List;
import java.util.Objects;
import java.util.stream.Stream;

/// The run index: the runs and checkpoints of each owner, for listings. It is updated from the runs'
/// entities, which are authoritative; an older write never replaces a newer one. All methods block: call them
/// from virtual threads.
public interface RunIndex {
    /// The largest page, in rows.
    int MAX_PAGE = 1000;

    /// Stores the summary of a run, unless a newer version is stored.
    ///
    /// @param version increases with every change of the run
    void put(RunSummary summary, long version);

    /// Deletes a run.
    void remove(RunId run);

    /// The runs of `owner`, newest first.
    ///
    /// @param limit 1 to [#MAX_PAGE]
    /// @param offset rows to skip, at least 0
    ListingPage<RunSummary> runs(String owner, int limit, long offset);

    /// All runs of `owner`, newest first, read in pages as the stream is consumed. A run that is stored or
    /// removed meanwhile moves the others, so that one of them may be missed or appear twice.
    default Stream<RunSummary> allRuns(String owner) {
        long[] offset = {0};
        return Stream.iterate(runs(owner, MAX_PAGE, 0).items(), Objects::nonNull, page ->
                page.size() < MAX_PAGE ? null : runs(owner, MAX_PAGE, offset[0] += MAX_PAGE).items())
                .flatMap(List::stream);
    }

    /// The newest version of each checkpoint in the runs of `owner`, newest first; limits as for [#runs].
    ListingPage<CheckpointManifest> checkpoints(String owner, int limit, long offset);
}
