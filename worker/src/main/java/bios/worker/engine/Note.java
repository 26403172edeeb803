package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.model.ModelName;
import bios.protocol.wire.Message;
import java.util.Map;

/// What comes back to an [Engine] from its device and from its readers and writers. Never leaves the process.
sealed interface Note extends Message {
    /// The device is open and its models are loaded.
    record Loaded(Machine machine) implements Note {}

    /// Something threw that was to turn failures into faults: a bug.
    record Broken(String what, Throwable why) implements Note {}

    /// An entry of a line can go to the device.
    record Prepared(Line line, Line.Entry entry, Deed deed) implements Note {}

    /// An entry of a line cannot be done.
    record Unprepared(Line line, Line.Entry entry, Fault fault) implements Note {}

    /// The device did the first entries of some lines.
    record Done(Map<Line, Worked> outcomes) implements Note {}

    /// How a deed ended, and how long the device took over it.
    record Worked(Outcome outcome, long nanos) {}

    /// The device made a pass of training.
    record Passed(Machine.Passed pass, long nanos) implements Note {}

    /// A sampler made a step.
    record Stepped(ModelName model, Machine.Sampled step) implements Note {}

    /// A copy of a run's state was written, or not.
    record Kept(Line line, Line.Entry entry, EngineEvent event) implements Note {}

    /// An adapter was read.
    record Fetched(AdapterShelf.Key key, byte[] bytes) implements Note {}

    /// An adapter is on the device, or will not be.
    record Placed(AdapterShelf.Key key, Machine.Placed placed) implements Note {}

    /// Freed memory on the device.
    record Freed() implements Note {}
}
