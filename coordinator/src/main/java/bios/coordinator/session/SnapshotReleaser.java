package bios.coordinator.session;

import bios.protocol.run.RunId;
import java.util.concurrent.CompletionStage;

/// Tells a run that a session is over.
@FunctionalInterface
public interface SnapshotReleaser {
    /// Frees the snapshots that `run` made for `session`. Gives true when that is done or there is no such
    /// run; false, or a failed stage, when it must be tried again.
    CompletionStage<Boolean> release(String owner, RunId run, String session);
}
