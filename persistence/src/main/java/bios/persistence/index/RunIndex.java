package bios.persistence.index;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunId;

/// The read side: which runs and checkpoints an owner has. It follows the entities, which are the truth; an
/// older write never replaces a newer one. All methods block: call them from virtual threads.
public interface RunIndex {
    /// The most rows of one page.
    int MAX_PAGE = 1000;

    /// Writes what is known of a run, unless a newer version is there.
    ///
    /// @param version grows with every change of the run
    void put(RunSummary summary, long version);

    /// Forgets a run.
    void remove(RunId run);

    /// The runs of `owner`, newest first.
    ///
    /// @param limit 1 to [#MAX_PAGE]
    /// @param offset rows to skip, at least 0
    Page<RunSummary> runs(String owner, int limit, long offset);

    /// The newest version of each checkpoint in the runs of `owner`, newest first; limits as for [#runs].
    Page<CheckpointManifest> checkpoints(String owner, int limit, long offset);
}
