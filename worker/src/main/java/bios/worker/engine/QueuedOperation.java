package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import java.util.Optional;

/// Something that the run has to do.
final class QueuedOperation {
    final EngineCommand command;
    final long position;
    final OrderedReplies.Slot slot;
    boolean begun;
    private Optional<DeviceTask> deed = Optional.empty();
    private Optional<Fault> fault = Optional.empty();
    /// Bytes of the Java heap that [HeapBudget] has set aside for it.
    long heap;
    /// The same for the copy that is made for it.
    long copy;

    QueuedOperation(EngineCommand command, long position, OrderedReplies.Slot slot) {
        this.command = command;
        this.position = position;
        this.slot = slot;
    }

    /// All that the device needs for it is in memory.
    void prepared(DeviceTask ready) {
        deed = Optional.of(ready);
    }

    /// It cannot be done.
    void failed(Fault why) {
        fault = Optional.of(why);
    }

    Optional<Fault> fault() {
        return fault;
    }

    DeviceTask deed() {
        return deed.orElseThrow();
    }

    /// Whether its preparation has ended, well or not.
    boolean decided() {
        return deed.isPresent() || fault.isPresent();
    }

    /// Whether it copies the run's state.
    boolean copies() {
        return deed.filter(d -> d instanceof DeviceTask.Copy).isPresent();
    }
}
