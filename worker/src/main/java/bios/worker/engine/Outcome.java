package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.run.OperationResult;
import bios.worker.adapter.StateSnapshot;

/// How a [Deed] ended.
sealed interface Outcome {
    record Opened() implements Outcome {}

    record Given(OperationResult result) implements Outcome {}

    record Copied(StateSnapshot snapshot) implements Outcome {}

    /// Nothing was changed.
    record Failed(Fault fault) implements Outcome {}
}
