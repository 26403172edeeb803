package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.run.OperationResult;
import bios.worker.adapter.StateSnapshot;

/// How a [DeviceTask] ended.
sealed interface TaskOutcome {
    record Opened() implements TaskOutcome {}

    record Given(OperationResult result) implements TaskOutcome {}

    record Copied(StateSnapshot snapshot) implements TaskOutcome {}

    /// Nothing was changed.
    record Failed(Fault fault) implements TaskOutcome {}
}
