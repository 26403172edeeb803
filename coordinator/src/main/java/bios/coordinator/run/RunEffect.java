package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand.EngineEvent.RecoveryPointWritten;
import bios.protocol.run.OperationKind;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/// An action that [RunScheduler] requests. [TrainingRunEntity] executes the effects of a step in order.
sealed interface RunEffect {
    /// Persist these events now; [RunInput.Stored] follows. Never an effect of [RunInput.Stored].
    record Persist(List<RunEvent> events) implements RunEffect {}

    /// Persist these events as soon as possible; [RunInput.PersistDue] follows.
    record PersistSoon(long epoch, List<RunEvent> events) implements RunEffect {}

    /// Start an engine session: events of the engine have this epoch from now on.
    record StartSession(long epoch) implements RunEffect {}

    /// Open the run in the engine at its recovery point.
    record OpenRun() implements RunEffect {}

    /// Close the run in the engine.
    record CloseRun() implements RunEffect {}

    /// Send an operation to the engine.
    ///
    /// @param loaded the checkpoint, if the operation is a load
    /// @param alone whether the device may execute nothing else with it
    record Execute(PendingOperation operation, Optional<CheckpointManifest> loaded, boolean alone)
            implements RunEffect {}

    /// Request a recovery point of the state after `position` from the engine.
    record TakeRecoveryPoint(long position) implements RunEffect {}

    /// Find the checkpoint that a load names.
    ///
    /// @param attempt number of the attempt, from 1
    record ResolveLoad(long epoch, PendingOperation operation, int attempt) implements RunEffect {}

    /// Write the results before a recovery point to the blob store.
    record WriteResults(long epoch, RecoveryPointWritten point) implements RunEffect {}

    /// Delete blobs that nothing refers to.
    record DeleteBlobs(List<BlobId> blobs) implements RunEffect {}

    /// Start a timer.
    record StartTimer(RunTimer timer, Duration after) implements RunEffect {}

    /// Keep the outcome of an operation and send it to the clients that wait for it.
    ///
    /// @param first whether the operation had no outcome before
    record Finish(FinishedOperation outcome, boolean first) implements RunEffect {}

    /// Write a save to the index; [RunInput.SaveIndexed] follows.
    record IndexSave(long position) implements RunEffect {}

    /// Deliver [RunInput.UnloadDue].
    record Unload() implements RunEffect {}

    /// Answer the clients that have requested the unloading.
    record AnswerUnload() implements RunEffect {}

    /// Request passivation from the shard.
    ///
    /// @param resident whether the run is open in the engine or being opened
    record Passivate(boolean resident) implements RunEffect {}

    /// End the entity.
    record Stop() implements RunEffect {}

    /// Record the occurrence in log, metrics and history.
    record Report(Occurrence occurrence) implements RunEffect {}

    /// An occurrence to be recorded; it changes no state.
    sealed interface Occurrence {
        /// A session has started.
        ///
        /// @param cause its name in the metrics
        /// @param operations number of operations to be replayed
        /// @param last position of the last operation to be replayed
        record SessionStarted(String cause, int operations, long last) implements Occurrence {}

        /// The engine has opened the run.
        record Opened() implements Occurrence {}

        /// The engine did not open the run.
        ///
        /// @param repeated whether the attempt before failed for the same cause
        record OpenFailed(Fault why, boolean repeated) implements Occurrence {}

        /// The engine has lost the run.
        record EngineLost() implements Occurrence {}

        /// The run was evicted from the engine.
        record Evicted() implements Occurrence {}

        /// The run is being handed over to another node.
        record Draining() implements Occurrence {}

        /// The engine has executed an operation.
        record Executed(OperationKind kind, long position) implements Occurrence {}

        /// The device time of an operation is known.
        record Measured(long position, long nanos) implements Occurrence {}

        /// An operation met a fault of the moment or the worker and is retried later.
        record OperationWaits(long position, Fault why) implements Occurrence {}

        /// A recovery point has a weight or moment that is infinite or NaN.
        record StateNotFinite(long position, Fault why) implements Occurrence {}

        /// A recovery point could not be made durable.
        record RecoveryPointFailed(String why) implements Occurrence {}

        /// Blobs could not be deleted.
        record DeletionFailed(String why) implements Occurrence {}
    }
}
