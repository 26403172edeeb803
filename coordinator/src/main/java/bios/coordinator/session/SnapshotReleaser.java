package bios.coordinator.session;

import bios.protocol.run.RunId;
import java.util.concurrent.CompletionStage;

/// Makes a run release the snapshots of a session that has ended.
@FunctionalInterface
public interface SnapshotReleaser {
    /// Releases the snapshots that `run` made for `session`. The result is true if that is done or the run
    /// does not exist; false, or a failure, if it must be tried again.
    CompletionStage<Boolean> release(String owner, RunId run, String session);
}
