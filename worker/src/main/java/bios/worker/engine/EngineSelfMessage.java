package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.wire.Message;
import bios.worker.adapter.Adapter;
import java.util.List;

/// A message to an [Engine] from its device's thread or its virtual threads. Never leaves the process.
sealed interface EngineSelfMessage extends Message {
    /// The device is open and its models are loaded.
    record Loaded(DeviceExecutor executor, ModelCatalog.Snapshot models) implements EngineSelfMessage {}

    /// A model has left service, or is in service again, or for the first time.
    record ModelsChanged(ModelCatalog.Snapshot models) implements EngineSelfMessage {}

    /// The device is lost, or something threw that had to turn failures into faults: the engine stops.
    record Broken(String what, Throwable why) implements EngineSelfMessage {}

    /// An operation is decoded.
    record Decoded(RunQueue run, QueuedOperation operation, DeviceTask task) implements EngineSelfMessage {}

    /// An operation cannot be executed.
    record DecodeFailed(RunQueue run, QueuedOperation operation, Fault fault) implements EngineSelfMessage {}

    /// Operations have their outcomes.
    record Executed(List<Done> operations) implements EngineSelfMessage {}

    /// How an operation ended.
    ///
    /// @param nanos that the device has worked for it
    record Done(ResidentRun run, QueuedOperation operation, TaskOutcome outcome, long nanos) {}

    /// A copy of a run's state was written, or not.
    ///
    /// @param live the state itself was read
    record Written(RunQueue run, QueuedOperation operation, EngineEvent event, boolean live)
            implements EngineSelfMessage {}

    /// A sampler has finished requests, and has drawn tokens of others that are followed.
    record Sampled(List<DeviceExecutor.SampleOutcome> outcomes, List<Progress> progress)
            implements EngineSelfMessage {}

    /// What the sequences of a followed request have drawn since the last report.
    record Progress(PendingSample request, List<DrawnTokens> sequences) {}

    /// An adapter is on the device.
    record AdapterLoaded(AdapterCache.Key key, Adapter adapter) implements EngineSelfMessage {}

    /// An adapter could not be loaded.
    record AdapterFailed(AdapterCache.Key key, Fault fault) implements EngineSelfMessage {}

    /// Time to release the memory that nothing has used since the last time.
    record ReleaseUnused() implements EngineSelfMessage {}

    /// A call on the device's thread without a result is done.
    record Called() implements EngineSelfMessage {}
}
