package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineEvent.RecoveryPointWritten;
import java.util.List;

/// Something that happened to a run and that [RunScheduler] must judge. An `epoch` is that of the engine
/// session in which it began: an input of an earlier session is stale and changes nothing.
sealed interface RunInput {
    /// The journal was read: the engine holds nothing of the run.
    record Recovered() implements RunInput {}

    /// The journal holds these events, and the run that is passed with them is the one after them.
    record Stored(List<RunEvent> events) implements RunInput {}

    /// The events of [RunEffect.Store] may be persisted now.
    record StoreDue(long epoch, List<RunEvent> events) implements RunInput {}

    /// The engine sent this.
    record FromEngine(long epoch, EngineEvent event) implements RunInput {}

    /// The engine has stopped.
    record EngineStopped() implements RunInput {}

    /// The load at `position` names this checkpoint.
    record LoadFound(long epoch, long position, boolean optimizer, CheckpointManifest manifest)
            implements RunInput {}

    /// The load at `position` names no checkpoint that it could load.
    record LoadFailed(long epoch, long position, Fault why) implements RunInput {}

    /// The run that has the checkpoint of the load at `position` did not answer.
    ///
    /// @param attempt which time it was asked, from 1
    /// @param why the fault of the load if this was the last time
    record LoadUnanswered(long epoch, long position, int attempt, Fault why) implements RunInput {}

    /// The results before a recovery point are in the blob store.
    ///
    /// @param pages all pages that the run keeps from now on, oldest first
    record ResultsWritten(long epoch, RecoveryPointWritten point, List<ResultsPage> pages)
            implements RunInput {}

    /// The results before a recovery point could not be stored.
    record ResultsNotWritten(long epoch, String why) implements RunInput {}

    /// The index shows the checkpoint that the save at `position` has made.
    record SaveShown(long position) implements RunInput {}

    /// The blob store has deleted these blobs.
    record BlobsDeleted(List<BlobId> blobs) implements RunInput {}

    /// The blob store has failed to delete some of them.
    record BlobsNotDeleted(String why) implements RunInput {}

    /// The results that only memory holds now exceed their limit, or do so no more.
    record ResultsHeavy(boolean heavy) implements RunInput {}

    /// The node wants the results of this run in the blob store.
    record RecoveryPointWanted() implements RunInput {}

    /// The run holds its node's turn of [ExclusiveReplay].
    record ExclusiveGranted(long epoch) implements RunInput {}

    /// The owner unloads the run.
    record UnloadRequested() implements RunInput {}

    /// The run may be closed now, if it still has nothing to do.
    record UnloadDue(long nowMillis) implements RunInput {}

    /// The run must leave its node.
    record LeaveRequested() implements RunInput {}

    /// No command has come for some time.
    ///
    /// @param busy whether clients wait for results, or the index is being written
    /// @param sharded whether a shard can let the run go
    record IdleElapsed(boolean busy, boolean sharded) implements RunInput {}

    /// A timer has elapsed.
    record TimerElapsed(RunTimer timer) implements RunInput {}
}
