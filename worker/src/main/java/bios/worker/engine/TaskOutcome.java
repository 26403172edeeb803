package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.run.OperationResult;
import bios.worker.adapter.StateSnapshot;

/// How a [DeviceTask] ended.
sealed interface TaskOutcome {
    /// The run has its first state.
    record Opened() implements TaskOutcome {}

    /// The operation has a result.
    record Completed(OperationResult result) implements TaskOutcome {}

    /// The state is copied, to be written.
    ///
    /// @param live there was no room for a copy: the state itself is read, and its run pauses until it is
    ///     written
    record Copied(StateSnapshot snapshot, boolean live) implements TaskOutcome {}

    /// Nothing was changed.
    record Failed(Fault fault) implements TaskOutcome {}
}
