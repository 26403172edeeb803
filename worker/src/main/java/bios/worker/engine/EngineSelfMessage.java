package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.model.ModelName;
import bios.protocol.wire.Message;
import java.util.Map;

/// What comes back to an [Engine] from its device and from its readers and writers. Never leaves the process.
sealed interface EngineSelfMessage extends Message {
    /// The device is open and its models are loaded.
    record Loaded(DeviceExecutor machine) implements EngineSelfMessage {}

    /// Something threw that was to turn failures into faults: a bug.
    record Broken(String what, Throwable why) implements EngineSelfMessage {}

    /// An entry of a line can go to the device.
    record Prepared(RunQueue line, QueuedOperation entry, DeviceTask deed) implements EngineSelfMessage {}

    /// An entry of a line cannot be done.
    record Unprepared(RunQueue line, QueuedOperation entry, Fault fault) implements EngineSelfMessage {}

    /// The device did the first entries of some lines.
    record Done(Map<RunQueue, Worked> outcomes) implements EngineSelfMessage {}

    /// How a deed ended, and how long the device took over it.
    record Worked(TaskOutcome outcome, long nanos) {}

    /// The device made a pass of training.
    record Passed(DeviceExecutor.Passed pass, long nanos) implements EngineSelfMessage {}

    /// A sampler made a step.
    record Stepped(ModelName model, DeviceExecutor.Sampled step) implements EngineSelfMessage {}

    /// A copy of a run's state was written, or not.
    record Kept(RunQueue line, QueuedOperation entry, EngineEvent event) implements EngineSelfMessage {}

    /// An adapter was read.
    record Fetched(AdapterCache.Key key, byte[] bytes) implements EngineSelfMessage {}

    /// An adapter is on the device, or will not be.
    record Placed(AdapterCache.Key key, DeviceExecutor.Placed placed) implements EngineSelfMessage {}

    /// Freed memory on the device.
    record Freed() implements EngineSelfMessage {}
}
