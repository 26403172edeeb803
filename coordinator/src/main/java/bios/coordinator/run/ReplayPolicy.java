package bios.coordinator.run;

import bios.coordinator.run.RunEvent.OperationAttempted;
import bios.coordinator.run.RunEvent.OperationFailed;
import bios.coordinator.run.RunEvent.ReplayBegan;
import bios.protocol.Fault;

/// The rule by which operations are executed again after a failure, and by which one of them is blamed for
/// it (docs/decisions/0007-blame.md). This record is the only place of that rule. Pure.
///
/// @param attempts how many deaths of a worker during one exclusive operation fail that operation
/// @param replayUntil operations up to this position may have been executed before the failure
/// @param exclusive whether they are executed one at a time, because an earlier replay failed too
/// @param attempted the last position whose attempt is in the journal; 0: none
record ReplayPolicy(int attempts, long replayUntil, boolean exclusive, long attempted) {
    /// What must happen before an operation goes to the engine.
    sealed interface Verdict {
        /// Nothing: it goes now.
        record Execute() implements Verdict {}

        /// The journal must hold this event.
        record Record(RunEvent event) implements Verdict {}

        /// The engine must have answered for all operations before it.
        record WaitForEarlier() implements Verdict {}

        /// The run must hold the node's turn of [ExclusiveReplay].
        record WaitForTurn() implements Verdict {}

        /// It does not go: it fails.
        record GiveUp(OperationFailed failure) implements Verdict {}
    }

    /// The code of an operation that is given up because workers died while they executed it.
    static final String WORKER_LOST = "worker_lost";

    /// Before the first session: nothing is replayed.
    static ReplayPolicy initial(int attempts) {
        return new ReplayPolicy(attempts, 0, false, 0);
    }

    /// After the engine or its process has ended. If a replay was under way already, it has failed, and
    /// operations are now executed one at a time.
    ReplayPolicy afterFailure(TrainingRun run) {
        return new ReplayPolicy(attempts, run.accepted(), run.attempt().isPresent(), 0);
    }

    /// After the attempt of `position` was stored.
    ReplayPolicy attempting(long position) {
        return new ReplayPolicy(attempts, replayUntil, exclusive, position);
    }

    /// Whether all operations that may have been executed before are behind `position`.
    boolean over(long position) {
        return position > replayUntil;
    }

    /// What must happen before `operation` goes to the engine.
    ///
    /// @param engineIdle whether the engine has answered for everything it was given
    /// @param turn whether the run holds the node's turn
    Verdict judge(TrainingRun run, PendingOperation operation, boolean engineIdle, boolean turn) {
        long position = operation.position();
        if (over(position)) return new Verdict.Execute();
        if (!exclusive) return run.attempt().isEmpty()
                ? new Verdict.Record(new ReplayBegan(position)) : new Verdict.Execute();
        if (!engineIdle) return new Verdict.WaitForEarlier();
        // Those before the stored attempt were executed after an earlier failure and did not end a worker.
        if (run.attempt().filter(a -> position < a.position()).isPresent()) return new Verdict.Execute();
        if (attempted == position) return turn ? new Verdict.Execute() : new Verdict.WaitForTurn();
        int times = run.attempt().filter(a -> a.position() == position)
                .map(TrainingRun.Attempt::times).orElse(0);
        if (times >= attempts) return new Verdict.GiveUp(givenUp(position, times));
        return turn ? new Verdict.Record(new OperationAttempted(position)) : new Verdict.WaitForTurn();
    }

    private static OperationFailed givenUp(long position, int times) {
        return new OperationFailed(position, Fault.server(WORKER_LOST, "the worker died " + times
                + " times while it executed this operation alone; it is not tried again. Split it if it is"
                + " large"));
    }
}
