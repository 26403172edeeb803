package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineEvent.RecoveryPointWritten;
import bios.protocol.run.DeathReport;
import java.util.List;
import java.util.Optional;

/// An input of [RunScheduler]. Its `epoch` is that of the engine session in which the cause of the input was
/// started: an input of an earlier session is stale and changes nothing.
sealed interface RunInput {
    /// The journal was read; the run is not open in the engine.
    record Recovered() implements RunInput {}

    /// These events are in the journal; the run that is passed with the input includes them.
    record Stored(List<RunEvent> events) implements RunInput {}

    /// The events of [RunEffect.PersistSoon] may be persisted now.
    record PersistDue(long epoch, List<RunEvent> events) implements RunInput {}

    /// The engine sent an event.
    record FromEngine(long epoch, EngineEvent event) implements RunInput {}

    /// The engine has stopped.
    record EngineStopped() implements RunInput {}

    /// The checkpoint of the load at `position` was found.
    record LoadFound(long epoch, long position, boolean optimizer, CheckpointManifest manifest)
            implements RunInput {}

    /// The load at `position` names no checkpoint that can be loaded.
    record LoadFailed(long epoch, long position, Fault why) implements RunInput {}

    /// The run with the checkpoint of the load at `position` did not answer.
    ///
    /// @param attempt number of the attempt, from 1
    /// @param why why the load waits
    record LoadUnanswered(long epoch, long position, int attempt, Fault why) implements RunInput {}

    /// The results before a recovery point are in the blob store.
    ///
    /// @param pages all pages that the run keeps from now on, oldest first
    record ResultsWritten(long epoch, RecoveryPointWritten point, List<ResultsPage> pages)
            implements RunInput {}

    /// The results before a recovery point could not be stored.
    record ResultsNotWritten(long epoch, String why) implements RunInput {}

    /// The index contains the checkpoint of the save at `position`, or the index has failed.
    record SaveIndexed(long position) implements RunInput {}

    /// The blob store has deleted these blobs.
    record BlobsDeleted(List<BlobId> blobs) implements RunInput {}

    /// The blob store has failed to delete some of them.
    record BlobsNotDeleted(String why) implements RunInput {}

    /// The results that are only in memory exceed their limit now, or no longer do.
    record ResultsOverLimit(boolean overLimit) implements RunInput {}

    /// The node requests that the run writes its results to the blob store.
    record RecoveryPointWanted() implements RunInput {}

    /// Workers have ended while they executed operations of the run.
    record DeathReported(DeathReport report) implements RunInput {}

    /// The owner has requested that the operation that was set aside is tried again.
    ///
    /// @param seq the one that is meant: nothing happens if it is another one; empty: whichever it is
    record RetryRequested(Optional<Long> seq) implements RunInput {}

    /// The owner has requested that the operation that was set aside, or that waits in vain, fails.
    ///
    /// @param seq as in [RetryRequested]
    record GiveUpRequested(Optional<Long> seq) implements RunInput {}

    /// The owner has requested the unloading of the run.
    record UnloadRequested() implements RunInput {}

    /// The run is closed now if all its operations still have an outcome.
    record UnloadDue(long nowMillis) implements RunInput {}

    /// The run must be handed over: its entity stops on this node.
    record LeaveRequested() implements RunInput {}

    /// No command has arrived for the idle time.
    ///
    /// @param busy whether clients wait for results, or the index is being written
    /// @param sharded whether a shard can passivate the run
    record IdleElapsed(boolean busy, boolean sharded) implements RunInput {}

    /// A timer has elapsed.
    record TimerElapsed(RunTimer timer) implements RunInput {}
}
