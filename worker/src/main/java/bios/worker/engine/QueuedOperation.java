package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import java.util.Map;
import java.util.Optional;

/// One operation of a run from its arrival to its outcome: opening the run, executing an operation, taking a
/// recovery point. Only the engine changes it; it is decoded before it goes to the [DeviceQueue].
final class QueuedOperation {
    /// Progress of an operation.
    enum Stage {
        /// Not looked at.
        NEW,
        /// Its content is read and decoded.
        DECODING,
        /// It is decoded, or has failed.
        READY,
        /// The device has it, or its state is streamed.
        SUBMITTED
    }

    final EngineCommand command;
    final long position;
    final OrderedReplies.Place place;
    Stage stage = Stage.NEW;
    /// Bytes of the Java heap that [HeapBudget] has set aside for it.
    long heapBytes;
    /// Bytes of the state that it loads, for which room is reserved; 0 if it loads none.
    long stateBytes;
    private Optional<DeviceTask> task = Optional.empty();
    private Optional<Fault> fault = Optional.empty();

    QueuedOperation(EngineCommand command, long position, OrderedReplies.Place place) {
        this.command = command;
        this.position = position;
        this.place = place;
    }

    /// Sets what the device does for it.
    void decoded(DeviceTask decoded) {
        task = Optional.of(decoded);
        stage = Stage.READY;
    }

    /// Sets why it cannot be executed.
    void failed(Fault why) {
        fault = Optional.of(why);
        stage = Stage.READY;
    }

    Optional<Fault> fault() {
        return fault;
    }

    DeviceTask task() {
        return task.orElseThrow();
    }

    /// The operation as marks name it: its position by its run. Empty if no client submitted it, or if it
    /// only drops the gradient sum.
    Map<RunId, Long> marked() {
        return command instanceof EngineCommand.Execute execute
                && !(execute.operation() instanceof StoredOperation.Refused)
                ? Map.of(execute.run(), position) : Map.of();
    }

    /// Whether the device executes nothing else with it.
    boolean alone() {
        return command instanceof EngineCommand.Execute execute && execute.alone();
    }

    /// The operation in words, for messages.
    String words() {
        return position == 0 ? "opening the run" : "operation " + position;
    }
}
