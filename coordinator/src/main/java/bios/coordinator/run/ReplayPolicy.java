package bios.coordinator.run;

import bios.coordinator.run.RunEvent.OperationAttempted;
import bios.coordinator.run.RunEvent.OperationFailed;
import bios.coordinator.run.RunEvent.ReplayBegan;
import bios.protocol.Fault;

/// The rule for executing operations again after a failure, and for blaming one of them
/// (docs/decisions/0007-blame.md). No other code implements a part of it. Pure.
///
/// @param attempts how many ends of a worker during one exclusive operation fail that operation
/// @param replayUntil operations up to this position may have been executed before the failure
/// @param exclusive whether these are executed one at a time, because an earlier replay failed too
/// @param attempted the last position with an attempt in the journal; 0: none
record ReplayPolicy(int attempts, long replayUntil, boolean exclusive, long attempted) {
    /// What must happen before an operation is sent to the engine.
    sealed interface Verdict {
        /// Nothing: the operation is sent now.
        record Execute() implements Verdict {}

        /// The event must be in the journal.
        record Record(RunEvent event) implements Verdict {}

        /// The engine must have answered all operations before it.
        record WaitForEarlier() implements Verdict {}

        /// The run must have the node's turn of [ExclusiveReplay].
        record WaitForTurn() implements Verdict {}

        /// The operation is not sent: it fails.
        record GiveUp(OperationFailed failure) implements Verdict {}
    }

    /// The error code of an operation that is given up because workers ended while they executed it.
    static final String WORKER_LOST = "worker_lost";

    /// The policy before the first session: nothing is replayed.
    static ReplayPolicy initial(int attempts) {
        return new ReplayPolicy(attempts, 0, false, 0);
    }

    /// The policy after the engine or its process has ended. If that interrupted a replay, operations are now
    /// executed one at a time.
    ReplayPolicy afterFailure(TrainingRun run) {
        return new ReplayPolicy(attempts, run.accepted(), run.attempt().isPresent(), 0);
    }

    /// The policy after the attempt at `position` was stored.
    ReplayPolicy attempting(long position) {
        return new ReplayPolicy(attempts, replayUntil, exclusive, position);
    }

    /// Whether `position` is after all operations that may have been executed before.
    boolean over(long position) {
        return position > replayUntil;
    }

    /// What must happen before `operation` is sent to the engine.
    ///
    /// @param engineIdle whether the engine has answered everything that was sent
    /// @param turn whether the run has the node's turn
    Verdict judge(TrainingRun run, PendingOperation operation, boolean engineIdle, boolean turn) {
        long position = operation.position();
        if (over(position)) return new Verdict.Execute();
        if (!exclusive) return run.attempt().isEmpty()
                ? new Verdict.Record(new ReplayBegan(position)) : new Verdict.Execute();
        if (!engineIdle) return new Verdict.WaitForEarlier();
        // Operations before the stored attempt were executed after an earlier failure and did not end a
        // worker.
        if (run.attempt().filter(a -> position < a.position()).isPresent()) return new Verdict.Execute();
        if (attempted == position) return turn ? new Verdict.Execute() : new Verdict.WaitForTurn();
        int times = run.attempt().filter(a -> a.position() == position)
                .map(TrainingRun.Attempt::times).orElse(0);
        if (times >= attempts) return new Verdict.GiveUp(givenUp(position, times));
        return turn ? new Verdict.Record(new OperationAttempted(position)) : new Verdict.WaitForTurn();
    }

    private static OperationFailed givenUp(long position, int times) {
        return new OperationFailed(position, Fault.server(WORKER_LOST, "the worker died " + times
                + " times while it executed this operation exclusively; it is not tried again. Split it if it"
                + " is large"));
    }
}
