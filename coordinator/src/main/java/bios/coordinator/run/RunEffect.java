package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand.EngineEvent.RecoveryPointWritten;
import bios.protocol.run.OperationKind;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/// Something that [RunScheduler] wants done. [TrainingRunEntity] executes effects in their order.
sealed interface RunEffect {
    /// Persist these events at once; [RunInput.Stored] follows. Never an answer to [RunInput.Stored].
    record Persist(List<RunEvent> events) implements RunEffect {}

    /// Have these events persisted as soon as that is possible; [RunInput.StoreDue] follows.
    record Store(long epoch, List<RunEvent> events) implements RunEffect {}

    /// Begin an engine session: what the engine sends from now on carries this epoch.
    record StartSession(long epoch) implements RunEffect {}

    /// Open the run in the engine, at its recovery point.
    record OpenRun() implements RunEffect {}

    /// Close the run in the engine.
    record CloseRun() implements RunEffect {}

    /// Give the engine an operation.
    ///
    /// @param loaded what it loads, if it is a load
    record Execute(PendingOperation operation, Optional<CheckpointManifest> loaded) implements RunEffect {}

    /// Have the engine write the state behind `position`.
    record TakeRecoveryPoint(long position) implements RunEffect {}

    /// Find the checkpoint that a load names.
    ///
    /// @param attempt which time it is searched for, from 1
    record ResolveLoad(long epoch, PendingOperation operation, int attempt) implements RunEffect {}

    /// Write the results before a recovery point to the blob store.
    record WriteResults(long epoch, RecoveryPointWritten point) implements RunEffect {}

    /// Delete blobs that nothing refers to.
    record DeleteBlobs(List<BlobId> blobs) implements RunEffect {}

    /// Start a timer.
    record StartTimer(RunTimer timer, Duration after) implements RunEffect {}

    /// Ask for the node's turn of [ExclusiveReplay]; [RunInput.ExclusiveGranted] follows.
    record RequestExclusive(long epoch) implements RunEffect {}

    /// Give the turn back, or the request for it.
    record ReleaseExclusive() implements RunEffect {}

    /// An operation has its outcome: keep it and answer those who wait for it.
    ///
    /// @param first whether it had none before
    record Finish(FinishedOperation outcome, boolean first) implements RunEffect {}

    /// Have the index show a save; [RunInput.SaveShown] follows.
    record ShowSave(long position) implements RunEffect {}

    /// Deliver [RunInput.UnloadDue].
    record Unload() implements RunEffect {}

    /// Answer those who have unloaded the run.
    record AnswerUnload() implements RunEffect {}

    /// Have the shard let the run go.
    ///
    /// @param resident whether the engine has been asked to hold it
    record Passivate(boolean resident) implements RunEffect {}

    /// End the entity.
    record Stop() implements RunEffect {}

    /// Put this into log, metrics and history.
    record Report(Occurrence occurrence) implements RunEffect {}

    /// Something that people and monitoring want to know, and that changes nothing.
    sealed interface Occurrence {
        /// A session began.
        ///
        /// @param cause as the metrics name it
        /// @param operations to be executed again
        /// @param last position of the last of them
        record SessionStarted(String cause, int operations, long last) implements Occurrence {}

        /// The engine holds the run.
        record Opened() implements Occurrence {}

        /// The engine did not open the run.
        ///
        /// @param repeated whether the last try failed for the same cause
        /// @param retried whether it is tried again
        record OpenFailed(Fault why, boolean repeated, boolean retried) implements Occurrence {}

        /// The engine does not hold the run any more.
        record EngineLost() implements Occurrence {}

        /// The run has made room for others in the engine.
        record Evicted() implements Occurrence {}

        /// The run leaves its node.
        record Draining() implements Occurrence {}

        /// The engine has executed an operation.
        record Executed(OperationKind kind, long position) implements Occurrence {}

        /// The device has worked so long on an operation.
        record Measured(long position, long nanos) implements Occurrence {}

        /// An operation cannot be read now and waits.
        record OperationWaits(long position, String why) implements Occurrence {}

        /// A recovery point could not be made durable.
        record RecoveryPointFailed(String why) implements Occurrence {}

        /// Blobs could not be deleted.
        record DeletionFailed(String why) implements Occurrence {}
    }
}
