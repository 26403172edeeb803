package bios.persistence.index;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunId;

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

    /// The newest version of each checkpoint in the runs of `owner`, newest first; limits as for [#runs].
    ListingPage<CheckpointManifest> checkpoints(String owner, int limit, long offset);
}
