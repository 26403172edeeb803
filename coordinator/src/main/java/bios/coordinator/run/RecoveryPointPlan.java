package bios.coordinator.run;

import bios.protocol.engine.EngineCommand.EngineEvent.RecoveryPointWritten;
import bios.protocol.run.OperationKind;
import java.util.Optional;

/// When the next recovery point of a run is due, and how far the current one has come. Pure.
///
/// @param wanted whether one is due whatever was executed
/// @param inWork whether the engine was asked for one that is not in the journal yet
/// @param paused whether the last one failed and the retry delay has not elapsed
/// @param steps optimizer steps given to the engine since the last one was asked for
/// @param bytes bytes of all operations since then
/// @param operations the number of them
/// @param takenBytes bytes of the session's operations before the one in work
/// @param durableBytes bytes of the session's operations before the last one in the journal
/// @param written what the engine has written, while operations before it have no outcome yet
/// @param storing whether the results before it are being written
record RecoveryPointPlan(boolean wanted, boolean inWork, boolean paused, int steps, long bytes,
        int operations, long takenBytes, long durableBytes, Optional<RecoveryPointWritten> written,
        boolean storing) {
    static final RecoveryPointPlan INITIAL =
            new RecoveryPointPlan(false, false, false, 0, 0, 0, 0, 0, Optional.empty(), false);

    /// At the beginning of another session. Results that are being written go on being written.
    RecoveryPointPlan restarted() {
        return new RecoveryPointPlan(false, false, paused, 0, 0, 0, 0, 0, Optional.empty(), storing);
    }

    /// Whether enough was executed since the last one.
    boolean due(RunSettings settings) {
        return wanted || steps >= settings.pointSteps() || bytes >= settings.pointBytes()
                || operations >= settings.pointOperations();
    }

    /// Whether one is on its way from the engine to the journal.
    boolean underWay() {
        return storing || written.isPresent();
    }

    RecoveryPointPlan sent(PendingOperation operation) {
        return new RecoveryPointPlan(wanted, inWork, paused,
                steps + (operation.kind() == OperationKind.OPTIM_STEP ? 1 : 0),
                bytes + operation.operation().bytes(), operations + 1, takenBytes, durableBytes, written,
                storing);
    }

    RecoveryPointPlan want() {
        return new RecoveryPointPlan(true, inWork, paused, steps, bytes, operations, takenBytes, durableBytes,
                written, storing);
    }

    /// The engine is asked for one.
    RecoveryPointPlan taken(long sentBytes) {
        return new RecoveryPointPlan(false, true, paused, 0, 0, 0, sentBytes, durableBytes, written, storing);
    }

    /// The engine has written it.
    RecoveryPointPlan written(RecoveryPointWritten point) {
        return new RecoveryPointPlan(wanted, inWork, paused, steps, bytes, operations, takenBytes,
                durableBytes, Optional.of(point), storing);
    }

    /// The results before it are being written, or no more.
    RecoveryPointPlan storing(boolean now) {
        return new RecoveryPointPlan(wanted, inWork, paused, steps, bytes, operations, takenBytes,
                durableBytes, now ? Optional.empty() : written, now);
    }

    /// The journal holds it.
    RecoveryPointPlan durable() {
        return new RecoveryPointPlan(wanted, false, paused, steps, bytes, operations, takenBytes, takenBytes,
                written, storing);
    }

    /// It failed: another one is wanted, after the retry delay.
    RecoveryPointPlan failed() {
        return new RecoveryPointPlan(true, false, true, steps, bytes, operations, takenBytes, durableBytes,
                written, storing);
    }

    /// The retry delay has elapsed.
    RecoveryPointPlan resumed() {
        return new RecoveryPointPlan(wanted, inWork, false, steps, bytes, operations, takenBytes,
                durableBytes, written, storing);
    }
}
