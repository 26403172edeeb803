package bios.coordinator.run;

import bios.protocol.engine.EngineCommand.EngineEvent.RecoveryPointWritten;
import bios.protocol.run.OperationKind;
import java.util.Optional;

/// When the next recovery point of a run is due, and the progress of the current one. Pure.
///
/// @param wanted whether one is due regardless of what was executed
/// @param inWork whether one was requested from the engine and is not in the journal yet
/// @param paused whether the last one failed and the retry delay has not elapsed
/// @param steps optimizer steps sent to the engine since the last request
/// @param bytes bytes of all operations sent since then
/// @param operations number of operations sent since then
/// @param takenBytes bytes of the session's operations before the one in progress
/// @param durableBytes bytes of the session's operations before the last one in the journal
/// @param written the point that the engine has written, until all operations before it have an outcome
/// @param writingResults whether the results before it are being written
record RecoveryPointPlan(boolean wanted, boolean inWork, boolean paused, int steps, long bytes,
        int operations, long takenBytes, long durableBytes, Optional<RecoveryPointWritten> written,
        boolean writingResults) {
    static final RecoveryPointPlan INITIAL =
            new RecoveryPointPlan(false, false, false, 0, 0, 0, 0, 0, Optional.empty(), false);

    /// The plan at the start of a new session. Writes of results continue.
    RecoveryPointPlan restarted() {
        return new RecoveryPointPlan(false, false, paused, 0, 0, 0, 0, 0, Optional.empty(), writingResults);
    }

    /// Whether a recovery point is due.
    boolean due(RunSettings settings) {
        return wanted || steps >= settings.pointSteps() || bytes >= settings.pointBytes()
                || operations >= settings.pointOperations();
    }

    /// Whether the engine has written one that is not in the journal yet.
    boolean underWay() {
        return writingResults || written.isPresent();
    }

    RecoveryPointPlan sent(PendingOperation operation) {
        return new RecoveryPointPlan(wanted, inWork, paused,
                steps + (operation.kind() == OperationKind.OPTIM_STEP ? 1 : 0),
                bytes + operation.operation().bytes(), operations + 1, takenBytes, durableBytes, written,
                writingResults);
    }

    RecoveryPointPlan want() {
        return new RecoveryPointPlan(true, inWork, paused, steps, bytes, operations, takenBytes, durableBytes,
                written, writingResults);
    }

    /// Records the request to the engine.
    RecoveryPointPlan taken(long sentBytes) {
        return new RecoveryPointPlan(false, true, paused, 0, 0, 0, sentBytes, durableBytes, written,
                writingResults);
    }

    /// Records that the engine has written it.
    RecoveryPointPlan written(RecoveryPointWritten point) {
        return new RecoveryPointPlan(wanted, inWork, paused, steps, bytes, operations, takenBytes,
                durableBytes, Optional.of(point), writingResults);
    }

    /// Records whether the results before it are being written.
    RecoveryPointPlan writingResults(boolean now) {
        return new RecoveryPointPlan(wanted, inWork, paused, steps, bytes, operations, takenBytes,
                durableBytes, now ? Optional.empty() : written, now);
    }

    /// Records that it is in the journal.
    RecoveryPointPlan durable() {
        return new RecoveryPointPlan(wanted, false, paused, steps, bytes, operations, takenBytes, takenBytes,
                written, writingResults);
    }

    /// Records that it failed: another one is due after the retry delay.
    RecoveryPointPlan failed() {
        return new RecoveryPointPlan(true, false, true, steps, bytes, operations, takenBytes, durableBytes,
                written, writingResults);
    }

    /// Ends the retry delay.
    RecoveryPointPlan resumed() {
        return new RecoveryPointPlan(wanted, inWork, false, steps, bytes, operations, takenBytes,
                durableBytes, written, writingResults);
    }
}
