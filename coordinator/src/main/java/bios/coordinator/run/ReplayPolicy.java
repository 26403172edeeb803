package bios.coordinator.run;

import bios.coordinator.RetryDelay;
import bios.coordinator.run.RunEvent.OperationSetAside;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;

/// The rule for executing operations that met a fault of a moment or a worker, and for setting one aside
/// (docs/decisions/0007-blame.md). No other code implements a part of it. Pure.
///
/// @param attempts how many ends of workers during an operation alone, or faults of it, set it aside
/// @param retryAfter the first delay between two attempts; it grows fourfold
/// @param waited the position of the suspected operation whose delay has elapsed; 0: none
/// @param waiting whether a delay is running
/// @param trouble the last fault of an operation that is not its own
/// @param opening the last fault of the run's opening, until it is open; counts against no operation
record ReplayPolicy(int attempts, Duration retryAfter, long waited, boolean waiting,
        Optional<Trouble> trouble, Optional<Trouble> opening) {
    /// Faults of one operation, or of an opening at the operation before it, that another attempt, moment or
    /// worker may not meet.
    ///
    /// @param times how often the same one was met in a row
    record Trouble(long position, int times, Fault why) {
        /// Whether something else is away, for which an operation waits without limit: a store, or the run
        /// whose checkpoint it loads.
        private boolean away() {
            return why.code().equals(EngineCommand.STORE_FAILED) || why.code().equals(UNAVAILABLE);
        }

        /// Whether an unloading waits for the end of it no more than so often. Other faults may be those of a
        /// worker that is full or starting; the owner can give up what waits for their end.
        private boolean endsUnloading() {
            return why.code().equals(EngineCommand.STORE_FAILED) || GONE.contains(why.code());
        }

        private static Optional<Trouble> again(Optional<Trouble> last, long position, Fault why) {
            int times = last.filter(t -> t.position() == position && t.why().code().equals(why.code()))
                    .map(Trouble::times).orElse(0) + 1;
            return Optional.of(new Trouble(position, times, why));
        }
    }

    /// What must happen before an operation is sent to the engine.
    sealed interface Verdict {
        /// Nothing: the operation is sent now.
        ///
        /// @param alone whether nothing else may be executed with it
        record Execute(boolean alone) implements Verdict {}

        /// The engine must have answered all operations before it.
        record WaitForEarlier() implements Verdict {}

        /// The delay must elapse.
        record Delay(Duration time) implements Verdict {}

        /// The delay is running.
        record Delayed() implements Verdict {}

        /// The operation is not sent: it is set aside.
        record SetAside(OperationSetAside event) implements Verdict {}
    }

    /// The error code of an operation during which workers ended.
    static final String WORKER_LOST = "worker_lost";

    /// The error code of a load whose checkpoint's run does not answer.
    static final String UNAVAILABLE = "checkpoint_unavailable";

    /// The error codes of blobs that cannot be read again.
    private static final Set<String> GONE = Set.of("blob_missing", "blob_damaged");

    /// The error code of an operation that was executed to its end and fails by itself in a replay.
    static final String REPLAY_DIFFERS = "replay_differs";

    /// The policy of an entity that has just started.
    static ReplayPolicy initial(RunSettings settings) {
        return new ReplayPolicy(settings.attempts(), settings.retryAfter(), 0, false, Optional.empty(),
                Optional.empty());
    }

    /// What must happen before the operation at `position` is sent to the engine.
    ///
    /// @param executed operations up to this position were executed to their end before
    /// @param engineIdle whether the engine has answered everything that was sent
    Verdict judge(TrainingRun run, long position, long executed, boolean engineIdle) {
        if (run.suspect().filter(s -> s.position() == position).isEmpty())
            return new Verdict.Execute(false);
        if (!engineIdle) return new Verdict.WaitForEarlier();
        int deaths = run.deathsAlone();
        if (deaths >= attempts && position > executed)
            return new Verdict.SetAside(new OperationSetAside(position, lost(deaths)));
        if (deaths == 0 || waited == position) return new Verdict.Execute(true);
        return waiting ? new Verdict.Delayed() : new Verdict.Delay(delay(deaths));
    }

    /// The delay has started.
    ReplayPolicy delaying() {
        return new ReplayPolicy(attempts, retryAfter, waited, true, trouble, opening);
    }

    /// The delay before the operation at `position` has elapsed.
    ReplayPolicy delayed(long position) {
        return new ReplayPolicy(attempts, retryAfter, position, false, trouble, opening);
    }

    /// The session has ended: the delay starts again.
    ReplayPolicy interrupted() {
        return new ReplayPolicy(attempts, retryAfter, 0, false, trouble, opening);
    }

    /// The operation at `position` met a fault that is not its own.
    ReplayPolicy troubled(long position, Fault why) {
        return new ReplayPolicy(attempts, retryAfter, waited, waiting, Trouble.again(trouble, position, why),
                opening);
    }

    /// The engine could not open the run at its recovery point.
    ReplayPolicy notOpened(TrainingRun run, Fault why) {
        return new ReplayPolicy(attempts, retryAfter, waited, waiting, trouble,
                Trouble.again(opening, run.recovery().position() + 1, why));
    }

    /// The run is open at its recovery point, or need not be opened.
    ReplayPolicy opened() {
        return new ReplayPolicy(attempts, retryAfter, waited, waiting, trouble, Optional.empty());
    }

    /// Whether the operation at `position` is the one that met a fault that is not its own.
    boolean isTroubledBy(long position) {
        return trouble.filter(t -> t.position() == position).isPresent();
    }

    /// The fault for which the run waits, if its owner may give up what waits: something is away, or another
    /// fault was met as often in a row as sets an operation aside.
    Optional<Fault> waitsFor(TrainingRun run) {
        return waitsFor(run, t -> t.away() || t.times() >= attempts);
    }

    /// The fault for which the run waits, if it was met that often and unloading the run gives up what waits.
    Optional<Fault> waitsInVainFor(TrainingRun run) {
        return waitsFor(run, t -> t.times() >= attempts && t.endsUnloading());
    }

    private Optional<Fault> waitsFor(TrainingRun run, Predicate<Trouble> which) {
        if (run.pending().stream().allMatch(PendingOperation::settled)) return Optional.empty();
        return opening.filter(which)
                .or(() -> trouble.filter(which).filter(t -> isOpen(run, t.position()))).map(Trouble::why);
    }

    /// Whether the operation at `position` has no outcome and is not set aside.
    private static boolean isOpen(TrainingRun run, long position) {
        return run.at(position).filter(o -> !o.settled()).isPresent()
                && run.setAside().filter(aside -> aside.position() == position).isEmpty();
    }

    /// The operation that was executed before, and that met the same fault as often in a row as sets another
    /// one aside, though nothing else is away, or during which workers ended so often. Waiting alone may
    /// never help: what it needs may be gone.
    ///
    /// @param executed operations up to this position were executed to their end before
    /// @param finished those that were executed to their end since the last end of a worker
    Optional<Trouble> stuck(TrainingRun run, long executed, IntervalSet finished) {
        int deaths = run.deathsAlone();
        Optional<Trouble> deadly = run.suspect().map(TrainingRun.Suspect::position)
                .filter(at -> deaths >= attempts && !finished.contains(at))
                .map(at -> new Trouble(at, deaths, lost(deaths)));
        return trouble.filter(t -> t.times() >= attempts && !t.away()).or(() -> deadly)
                .filter(t -> t.position() <= executed && isOpen(run, t.position()));
    }

    /// The operation at `position` was executed to its end.
    ReplayPolicy succeeded(long position) {
        return trouble.filter(t -> t.position() <= position).isEmpty() ? this : untroubled();
    }

    /// The operation at `position` has an outcome, or goes on: what it met before says nothing of others.
    ReplayPolicy settled(long position) {
        return isTroubledBy(position) ? untroubled() : this;
    }

    private ReplayPolicy untroubled() {
        return new ReplayPolicy(attempts, retryAfter, waited, waiting, Optional.empty(), opening);
    }

    /// The event that sets the troubled operation aside, if it met its fault often enough.
    ///
    /// @param executed operations up to this position were executed to their end before: they are tried
    ///     until they succeed, unless their replay differs
    Optional<OperationSetAside> exhausted(long executed) {
        return trouble.filter(t -> t.times() >= attempts && !t.away()
                && (t.position() > executed || t.why().code().equals(REPLAY_DIFFERS)))
                .map(t -> new OperationSetAside(t.position(), t.why()));
    }

    /// The fault of an operation that was executed to its end and now fails by itself: no outcome, because
    /// its client may have been told another one.
    static Fault differs(Fault why) {
        return Fault.server(REPLAY_DIFFERS, "the operation was executed before, and its replay fails: "
                + why.message() + " (" + why.code() + "). The worker's settings or build, or the"
                + " configuration of the base model, differ from those it was executed with; put them back");
    }

    /// What the owner of an operation that is [#stuck] is told.
    static Fault stuck(Fault why) {
        return new Fault(why.kind(), why.code(), why.message() + "; the operation was executed before, so it"
                + " is tried again until it succeeds. If what it needs is gone for good, give it up (POST"
                + " /api/v1/training_runs/{run}/give_up): then it fails, and so does what was accepted after"
                + " it");
    }

    /// The delay before the next attempt at the troubled operation.
    Duration retryDelay() {
        return delay(trouble.map(Trouble::times).orElse(1));
    }

    private Duration delay(int times) {
        return new RetryDelay(retryAfter).after(times);
    }

    private static Fault lost(int deaths) {
        return Fault.server(WORKER_LOST, "the worker died " + deaths
                + " times while it executed this operation alone");
    }
}
