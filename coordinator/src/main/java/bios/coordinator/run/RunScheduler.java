package bios.coordinator.run;

import static bios.protocol.Require.require;

import bios.coordinator.run.PendingOperation.Outcome;
import bios.coordinator.run.RunEffect.Occurrence;
import bios.coordinator.run.RunEvent.*;
import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.StoredOperation;
import bios.protocol.run.WaitingOperation;
import bios.protocol.stored.StoredOperations;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Decides which operation of a run the engine executes next, and when the run's state is made durable,
/// replayed, evicted, moved and closed. A state machine without clock, actor, I/O or callback: [#step] takes
/// an input and returns the next state and the effects. The state of the run in the journal, [TrainingRun],
/// is passed with each input; this record is the state that is only in memory.
///
/// @param active whether the entity may act: [RunEvent.EntityBegan] is in the journal
/// @param epoch counts engine sessions
/// @param engine the state of the run in the engine
/// @param stalled why the run cannot proceed; empty: it can
/// @param evicting whether the engine has requested the eviction of the run
/// @param finished positions after the recovery point with a known outcome
/// @param unindexed positions of saves that are in the journal but not in the index yet
/// @param persistDue whether events of [RunEffect.PersistSoon] are not persisted yet
/// @param leaving whether the run leaves its node
/// @param passivating whether it leaves because it is idle
/// @param unloading whether its owner has requested the unloading and it is not closed yet
/// @param idlePointAt the number of accepted operations for which [RunTimer.IdlePoint] runs; -1: it does not
///     run
/// @param resultsOverLimit whether the results that are only in memory exceed their limit
record RunScheduler(RunSettings settings, boolean active, long epoch, Engine engine,
        Optional<Fault> stalled, boolean evicting, Pipeline pipeline, RecoveryPointPlan points,
        ReplayPolicy replay, IntervalSet finished, IntervalSet unindexed, boolean persistDue,
        boolean leaving, boolean passivating, boolean unloading, Deletion deletion,
        long idlePointAt, boolean resultsOverLimit) {
    /// The state of the run in the engine.
    enum Engine {
        CLOSED,
        /// The run was lost or refused; it is opened when [RunTimer.Reopen] elapses.
        RETRY_DELAY, OPENING, OPEN
    }

    /// The deletion of blobs that nothing refers to.
    enum Deletion {
        IDLE, RUNNING,
        /// The deletion has failed; it is tried again when [RunTimer.RetryDeletion] elapses.
        PAUSED
    }

    /// The state after an input, and the effects.
    record Transition(RunScheduler next, List<RunEffect> effects) {}

    /// The interval at which an idle run checks whether its recovery point is in the journal.
    private static final Duration POINT_WAIT = Duration.ofSeconds(1);

    /// The state before the journal is read.
    static RunScheduler initial(RunSettings settings) {
        return new RunScheduler(settings, false, 0, Engine.CLOSED, Optional.empty(), false,
                Pipeline.at(0), RecoveryPointPlan.INITIAL, ReplayPolicy.initial(settings),
                IntervalSet.EMPTY, IntervalSet.EMPTY, false, false, false, false, Deletion.IDLE, -1, false);
    }

    /// The transition that an input causes.
    ///
    /// @param run the state of the run in the journal
    Transition step(TrainingRun run, RunInput input) {
        var step = new Step(this, run);
        step.judge(input);
        return step.transition();
    }

    /// Whether the run is open in the engine or being opened.
    boolean resident() {
        return engine == Engine.OPENING || engine == Engine.OPEN;
    }

    /// The same state with the current value of `resultsOverLimit`; set before each step.
    RunScheduler withResultsOverLimit(boolean overLimit) {
        return overLimit == resultsOverLimit ? this : new RunScheduler(settings, active, epoch, engine,
                stalled, evicting, pipeline, points, replay, finished, unindexed, persistDue, leaving,
                passivating, unloading, deletion, idlePointAt, overLimit);
    }

    /// The operations that are accepted and have no outcome, of this run and of its owner's runs on the node.
    TrainingRun.Backlog backlog(TrainingRun run, int ofOwner, long bytesOfOwner) {
        int count = 0;
        long bytes = 0;
        for (PendingOperation operation : run.pending()) {
            if (finished.contains(operation.position())) continue;
            count++;
            bytes += operation.operation().bytes();
        }
        return new TrainingRun.Backlog(count, bytes, ofOwner, bytesOfOwner);
    }

    int unfinished(TrainingRun run) {
        return backlog(run, 0, 0).unfinished();
    }

    /// Whether an operation without an outcome can be executed: it does not wait for one that was set aside.
    boolean executable(TrainingRun run) {
        return executable(run, finished);
    }

    private static boolean executable(TrainingRun run, IntervalSet finished) {
        return run.pending().stream().anyMatch(o -> !finished.contains(o.position()) && !held(run, o));
    }

    private static boolean held(TrainingRun run, PendingOperation operation) {
        return run.setAside().filter(s -> s.holds(operation.position()) && !ownerWentOn(run, s)).isPresent();
    }

    /// Whether the owner has gone on after having been told of the operation that was set aside.
    private static boolean ownerWentOn(TrainingRun run, TrainingRun.SetAside aside) {
        return !aside.differs() && aside.until().filter(until -> run.accepted() > until).isPresent();
    }

    /// A position up to which all operations were executed to their end, in this process or before.
    long executed(TrainingRun run) {
        return executed(run, finished);
    }

    private static long executed(TrainingRun run, IntervalSet finished) {
        return Math.max(run.executed(), finished.through(run.recovery().position() + 1));
    }

    /// The operation that its owner can give up, if there is one.
    Optional<WaitingOperation> waiting(TrainingRun run) {
        return new Step(this, run).toGiveUp().map(failure -> {
            PendingOperation operation = run.at(failure.position()).orElseThrow();
            return new WaitingOperation(operation.seq(), operation.kind(), run.setAside().isPresent(),
                    failure.why());
        });
    }

    /// The operation that was executed before and cannot be executed again, see [ReplayPolicy#stuck].
    Optional<ReplayPolicy.Trouble> stuck(TrainingRun run) {
        return replay.stuck(run, executed(run), finished);
    }

    /// Whether the operation `seq` has no outcome yet.
    boolean awaitsOutcome(TrainingRun run, long seq) {
        return run.bySeq(seq).filter(o -> !finished.contains(o.position())).isPresent();
    }

    /// The number of operations before `seq` that have no outcome.
    int ahead(TrainingRun run, long seq) {
        if (run.bySeq(seq).isEmpty()) return 0;
        int ahead = 0;
        for (PendingOperation operation : run.pending()) {
            if (operation.seq() == seq) break;
            if (!finished.contains(operation.position())) ahead++;
        }
        return ahead;
    }

    /// One step in progress: the fields of the state, which it changes, and the effects so far. Lives for one
    /// call of [RunScheduler#step].
    private static final class Step {
        private final TrainingRun run;
        private final RunSettings settings;
        private final List<RunEffect> effects = new ArrayList<>();
        private boolean active;
        private long epoch;
        private Engine engine;
        private Optional<Fault> stalled;
        private boolean evicting;
        private Pipeline pipeline;
        private RecoveryPointPlan points;
        private ReplayPolicy replay;
        private IntervalSet finished;
        private IntervalSet unindexed;
        private boolean persistDue;
        private boolean leaving;
        private boolean passivating;
        private boolean unloading;
        private Deletion deletion;
        private long idlePointAt;
        private boolean resultsOverLimit;
        /// Whether the effects persist events: the next decision waits until they are in the journal.
        private boolean persisting;

        Step(RunScheduler s, TrainingRun run) {
            this.run = run;
            settings = s.settings;
            active = s.active;
            epoch = s.epoch;
            engine = s.engine;
            stalled = s.stalled;
            evicting = s.evicting;
            pipeline = s.pipeline;
            points = s.points;
            replay = s.replay;
            finished = s.finished;
            unindexed = s.unindexed;
            persistDue = s.persistDue;
            leaving = s.leaving;
            passivating = s.passivating;
            unloading = s.unloading;
            deletion = s.deletion;
            idlePointAt = s.idlePointAt;
            resultsOverLimit = s.resultsOverLimit;
        }

        Transition transition() {
            return new Transition(new RunScheduler(settings, active, epoch, engine, stalled, evicting,
                    pipeline, points, replay, finished, unindexed, persistDue, leaving, passivating,
                    unloading, deletion, idlePointAt, resultsOverLimit), List.copyOf(effects));
        }

        // Inputs

        void judge(RunInput input) {
            switch (input) {
                case RunInput.Recovered _ -> recovered();
                case RunInput.Stored(var events) -> events.forEach(this::stored);
                case RunInput.PersistDue(var at, var events) -> persistDue(at, events);
                case RunInput.FromEngine(var at, var event) -> {
                    if (at == epoch) fromEngine(event);
                }
                case RunInput.EngineStopped _ -> engineLost();
                case RunInput.DeathReported(var report) -> {
                    if (run.learnsFrom(report)) persist(new WorkerDied(report));
                }
                case RunInput.RetryRequested(var seq) -> run.setAside()
                        .filter(aside -> means(seq, aside.position()))
                        .ifPresent(aside -> persist(new OperationRetried(aside.position())));
                case RunInput.GiveUpRequested(var seq) -> {
                    if (toGiveUp().filter(failure -> means(seq, failure.position())).isPresent())
                        persist(givenUp());
                }
                case RunInput.LoadFound(var at, var position, var optimizer, var manifest) ->
                        resolved(at, position, () -> run.load(position, manifest, optimizer));
                case RunInput.LoadFailed(var at, var position, var why) ->
                        resolved(at, position, () -> failure(position, why));
                case RunInput.LoadUnanswered unanswered -> unanswered(unanswered);
                case RunInput.ResultsWritten written -> resultsWritten(written);
                case RunInput.ResultsNotWritten(var at, var why) -> {
                    points = points.writingResults(false);
                    if (at == epoch) pointFailed(why);
                }
                case RunInput.SaveIndexed(var position) -> saveIndexed(position);
                case RunInput.BlobsDeleted(var blobs) -> {
                    deletion = Deletion.IDLE;
                    persist(new BlobsFreed(blobs));
                }
                case RunInput.BlobsNotDeleted(var why) -> {
                    deletion = Deletion.PAUSED;
                    report(new Occurrence.DeletionFailed(why));
                    start(new RunTimer.RetryDeletion(), settings.retryAfter());
                }
                case RunInput.ResultsOverLimit(var overLimit) -> resultsOverLimit = overLimit;
                case RunInput.RecoveryPointWanted _ -> points = points.want();
                case RunInput.UnloadRequested _ -> unloading = true;
                case RunInput.UnloadDue(var now) -> {
                    if (unloading && closable()) persist(new RunClosed(now));
                }
                case RunInput.LeaveRequested _ -> leave();
                case RunInput.IdleElapsed(var busy, var sharded) -> idle(busy, sharded);
                case RunInput.TimerElapsed(var timer) -> elapsed(timer);
            }
            proceed();
        }

        private void recovered() {
            restart("restarted");
            // A run that does not exist needs no [RunEvent.EntityBegan]: its first event creates it.
            active = run.config().isEmpty();
        }

        private void stored(RunEvent event) {
            switch (event) {
                case EntityBegan _ -> begin();
                case OperationFailed(var at, var why, _, _, _) -> operationFailed(at, why);
                case OperationSetAside _ -> restart("operation_set_aside");
                case OperationRetried _ -> {
                    replay = ReplayPolicy.initial(settings);
                    restart("operation_retried");
                }
                case CheckpointCommitted e -> {
                    unindexed = unindexed.with(e.position());
                    effects.add(new RunEffect.IndexSave(e.position()));
                }
                case RecoveryPointReached e -> {
                    points = points.durable();
                    finished = finished.after(e.position());
                }
                case RunClosed _ -> {
                    endSession();
                    unloading = false;
                    effects.add(new RunEffect.AnswerUnload());
                }
                case RunCreated _, PublicationSet _, ProjectSet _, UsageCounted _, OperationAccepted _,
                        LoadResolved _,
                        LoadApplied _, ErrorSeen _,
                        CheckpointDeleted _, ExpirySet _, CheckpointsExpired _, SnapshotsReleased _,
                        WorkerDied _, ReplayBegan _, OperationAttempted _, ReplayFinished _,
                        BlobsAbandoned _, WeightsReleased _, BlobsFreed _, HistoryRecorded _ -> {}
            }
        }

        /// Activates the entity after [RunEvent.EntityBegan]: the outcomes in the journal are final.
        private void begin() {
            active = true;
            for (PendingOperation operation : run.pending()) {
                switch (operation.outcome()) {
                    case Outcome.Failed(var why) -> finish(FinishedOperation.failure(operation, why));
                    case Outcome.Dropped(var why) -> finish(FinishedOperation.failure(operation, why));
                    case Outcome.Committed(var manifest) ->
                        finish(FinishedOperation.success(operation, new OperationResult.Saved(manifest)));
                    case Outcome.Open _, Outcome.Resolved _, Outcome.Applied _ -> {}
                }
            }
        }

        private void persistDue(long at, List<RunEvent> events) {
            persistDue = false;
            if (at == epoch) persist(events);
        }

        // The engine

        private void fromEngine(EngineEvent event) {
            switch (event) {
                case EngineEvent.Opened _ -> {
                    if (engine != Engine.OPENING) return;
                    engine = Engine.OPEN;
                    stalled = Optional.empty();
                    replay = replay.opened();
                    report(new Occurrence.Opened());
                }
                case EngineEvent.OpenFailed(_, var why) -> {
                    if (engine == Engine.OPENING) openFailed(why);
                }
                case EngineEvent.StateNotFinite(_, var position, var why) ->
                        report(new Occurrence.StateNotFinite(position, why));
                case EngineEvent.EvictionRequested _ -> evicting = engine == Engine.OPEN;
                case EngineEvent.Executed(_, var position, var result) -> executed(position, result);
                case EngineEvent.Measured(_, var position, var nanos) ->
                        report(new Occurrence.Measured(position, nanos));
                case EngineEvent.Failed(_, var position, var why) -> failed(position, why);
                case EngineEvent.RecoveryPointWritten written -> points = points.written(written);
                case EngineEvent.RecoveryPointFailed(_, var position, var why) -> {
                    if (why.code().equals(EngineCommand.RUN_NOT_OPEN)) engineLost();
                    else pointFailed("at " + position + ": " + why.message());
                }
            }
        }

        private void executed(long position, OperationResult result) {
            if (!pipeline.holds(position)) return;
            answered(position);
            replay = replay.succeeded(position);
            PendingOperation operation = run.at(position).orElseThrow();
            if (operation.outcome() instanceof Outcome.Dropped) return; // its failure was told before
            report(new Occurrence.Executed(operation.kind(), position));
            switch (result) {
                case OperationResult.Saved(var manifest) -> persist(
                        new CheckpointCommitted(position, manifest, session(operation, manifest)));
                case OperationResult.Loaded _ -> {
                    points = points.want();
                    finish(FinishedOperation.success(operation, result));
                    // Given up meanwhile: an operation before it, which blocks what is behind it no more.
                    boolean blocked = run.blocking().filter(b -> b.position() < position).isPresent();
                    if (blocked || !(operation.outcome() instanceof Outcome.Applied))
                        persist(new LoadApplied(position));
                }
                case OperationResult.Stepped _, OperationResult.Evaluated _,
                        OperationResult.EvaluatedMatrix _ ->
                    finish(FinishedOperation.success(operation, result));
            }
        }

        /// The session with which an ephemeral snapshot ends: the one that the save names, or the run's.
        private Optional<String> session(PendingOperation operation, CheckpointManifest manifest) {
            if (manifest.name().isPresent()) return Optional.empty();
            Optional<String> asked = operation.operation() instanceof StoredOperation.Inline(var kind,
                    var encoded) && StoredOperations.decode(kind, encoded)
                            instanceof Operation.SaveSamplerWeights(_, _, var session)
                    ? session : Optional.empty();
            return asked.or(() -> run.config().map(c -> c.session()));
        }

        private void failed(long position, Fault why) {
            if (why.code().equals(EngineCommand.RUN_NOT_OPEN)) {
                engineLost();
                return;
            }
            if (!pipeline.holds(position)) return;
            if (why.kind() == Fault.Kind.SERVER) {
                troubled(position, why);
                return;
            }
            if (position <= executedUpTo() || finished.contains(position)) {
                troubled(position, ReplayPolicy.differs(why));
                return;
            }
            answered(position);
            persist(run.failed(position, why));
        }

        /// Handles a fault of the moment or the worker, which is no outcome: the operation is tried again,
        /// and set aside if that does not help. It waits for a store without limit.
        private void troubled(long position, Fault why) {
            report(new Occurrence.OperationWaits(position, why));
            replay = replay.troubled(position, why);
            Optional<OperationSetAside> aside = replay.exhausted(executedUpTo());
            if (aside.isPresent()) {
                answered(position);
                persist(aside.get());
                return;
            }
            Duration delay = replay.retryDelay();
            restart(why.code());
            reopenAfter(delay);
            stalled = Optional.of(stuck().isPresent() ? ReplayPolicy.stuck(why) : why);
        }

        /// The event of an operation that cannot be sent to the engine.
        private RunEvent failure(long position, Fault why) {
            return why.kind() == Fault.Kind.USER ? run.failed(position, why)
                    : new OperationSetAside(position, why);
        }

        /// Handles a failure in the journal: the engine executed later operations without regard to it.
        private void operationFailed(long position, Fault why) {
            PendingOperation operation = run.at(position).orElseThrow();
            finish(FinishedOperation.failure(operation, why));
            // Events to be stored were decided before the owner gave the operation up, and the engine may be
            // executing what the owner no longer waits for.
            if (persistDue || TrainingRun.blocksLater(operation, why) && pipeline.holdsAfter(position)
                    || pipeline.holds(position) || pipeline.resolving() == position
                    || engine == Engine.RETRY_DELAY && replay.isTroubledBy(position))
                restart("operation_failed");
            replay = replay.settled(position);
            if (run.pending().stream().allMatch(PendingOperation::settled)) replay = replay.opened();
        }

        private void engineLost() {
            report(new Occurrence.EngineLost());
            restart("engine_lost");
            reopenAfter(settings.retryAfter());
        }

        /// The run waits, with the reason, and is opened again later: what was accepted is not affected.
        private void openFailed(Fault why) {
            boolean repeated = stalled.filter(before -> sameCause(before, why)).isPresent();
            report(new Occurrence.OpenFailed(why, repeated));
            stalled = Optional.of(why);
            replay = replay.notOpened(run, why);
            reopenAfter(settings.retryAfter());
        }

        /// Messages of out-of-memory faults contain different numbers each time.
        private static boolean sameCause(Fault before, Fault why) {
            return before.code().equals(why.code())
                    && (before.message().equals(why.message()) || why.code().equals("out_of_memory"));
        }

        // Sessions

        /// Starts another session after the recovery point.
        private void restart(String cause) {
            List<PendingOperation> again = run.pending().stream()
                    .filter(o -> o.needsInput() && !held(run, o)).toList();
            report(new Occurrence.SessionStarted(cause, again.size(),
                    again.isEmpty() ? 0 : again.getLast().position()));
            endSession();
            effects.add(new RunEffect.StartSession(epoch));
        }

        private void reopenAfter(Duration delay) {
            engine = Engine.RETRY_DELAY;
            start(new RunTimer.Reopen(epoch), delay);
        }

        /// Ends the session: all its later inputs are stale.
        private void endSession() {
            if (engine == Engine.OPENING || engine == Engine.OPEN) effects.add(new RunEffect.CloseRun());
            epoch++;
            engine = Engine.CLOSED;
            evicting = false;
            pipeline = Pipeline.at(run.recovery().position());
            points = points.restarted();
            replay = replay.interrupted();
        }

        // Loads

        private interface Resolution {
            RunEvent event();
        }

        private void resolved(long at, long position, Resolution resolution) {
            if (at != epoch || pipeline.resolving() != position) return;
            pipeline = pipeline.resolving(0);
            replay = replay.settled(position);
            stalled = Optional.empty();
            persist(resolution.event());
        }

        private void unanswered(RunInput.LoadUnanswered load) {
            if (load.epoch() != epoch || pipeline.resolving() != load.position()) return;
            replay = replay.troubled(load.position(), load.why());
            stalled = Optional.of(load.why());
            start(new RunTimer.ResolveAgain(epoch, load.position(), load.attempt() + 1),
                    settings.retryAfter());
        }

        // Recovery points

        private void resultsWritten(RunInput.ResultsWritten written) {
            points = points.writingResults(false);
            if (written.epoch() != epoch) return;
            var point = written.point();
            persist(new RecoveryPointReached(point.position(), point.state(), point.step(), point.lora(),
                    Optional.empty(), written.pages()));
        }

        private void pointFailed(String why) {
            report(new Occurrence.RecoveryPointFailed(why));
            points = points.failed();
            start(new RunTimer.RetryRecoveryPoint(), settings.retryAfter());
            if (leaving) stop();
        }

        /// Stores a point that the engine has written as soon as all operations before it have an outcome.
        private void keepPoint() {
            if (points.written().isEmpty() || points.writingResults()) return;
            var written = points.written().get();
            if (!finished.containsAll(run.recovery().position() + 1, written.position())) return;
            points = points.writingResults(true);
            effects.add(new RunEffect.WriteResults(epoch, written));
        }

        // Leaving, closing, idling

        private void leave() {
            if (leaving) return;
            leaving = true;
            boolean resident = engine == Engine.OPENING || engine == Engine.OPEN;
            if (resident && !passivating) report(new Occurrence.Draining());
            start(new RunTimer.LeaveDeadline(), settings.leaveWithin());
        }

        private void stop() {
            effects.add(new RunEffect.Stop());
        }

        private boolean closable() {
            return unfinished() == 0 && !points.writingResults() && !persistDue;
        }

        private void idle(boolean busyElsewhere, boolean sharded) {
            boolean busy = busyElsewhere || executable() || unloading || persistDue || points.writingResults()
                    || deletion == Deletion.RUNNING || !quiet();
            // A point that is taken while the run leaves would leave the one before as garbage.
            boolean dirty = dirty() || !departed();
            if (!busy && !dirty) {
                if (!sharded) return;
                effects.add(new RunEffect.Passivate(engine == Engine.OPENING || engine == Engine.OPEN));
                passivating = true;
                return;
            }
            if (!busy) points = points.want();
            start(new RunTimer.Idle(), busy ? settings.idleAfter() : POINT_WAIT);
        }

        private void elapsed(RunTimer timer) {
            switch (timer) {
                case RunTimer.Reopen(var at) -> {
                    if (at == epoch && engine == Engine.RETRY_DELAY) engine = Engine.CLOSED;
                }
                case RunTimer.ResolveAgain(var at, var position, var attempt) -> {
                    if (at == epoch) run.at(position).ifPresent(load ->
                            effects.add(new RunEffect.ResolveLoad(epoch, load, attempt)));
                }
                case RunTimer.Attempt(var at, var position) -> {
                    if (at == epoch) replay = replay.delayed(position);
                }
                case RunTimer.IdlePoint(var accepted) -> {
                    idlePointAt = -1;
                    if (accepted == run.accepted() && idlePointDue()) points = points.want();
                }
                case RunTimer.RetryRecoveryPoint _ -> points = points.resumed();
                case RunTimer.RetryDeletion _ -> {
                    if (deletion == Deletion.PAUSED) deletion = Deletion.IDLE;
                }
                case RunTimer.LeaveDeadline _ -> stop();
                case RunTimer.Idle _ -> {} // the entity turns it into IdleElapsed
            }
        }

        // The next action

        private void proceed() {
            if (!active || persisting) return;
            keepPoint();
            deleteBlobs();
            while (!persistDue && next()) require(effects.size() < 100_000, "a run does not come to rest");
            if (persistDue) return;
            startIdlePoint();
            if (unloading && closable()) effects.add(new RunEffect.Unload());
            if (leaving && departed() && !points.underWay() && unindexed.none()) stop();
        }

        /// A run that has nothing to do for a while gets a recovery point, so that a restart replays nothing.
        private void startIdlePoint() {
            if (idlePointAt == run.accepted() || !idlePointDue()) return;
            idlePointAt = run.accepted();
            start(new RunTimer.IdlePoint(idlePointAt), settings.restAfter());
        }

        private boolean idlePointDue() {
            return engine == Engine.OPEN && quiet() && !executable() && dirty() && !leaving;
        }

        /// Whether a recovery would replay an operation.
        private boolean dirty() {
            return run.pending().stream().anyMatch(o -> !o.settled() && !held(run, o));
        }

        private boolean executable() {
            return RunScheduler.executable(run, finished);
        }

        private long executedUpTo() {
            return RunScheduler.executed(run, finished);
        }

        private Optional<ReplayPolicy.Trouble> stuck() {
            return replay.stuck(run, executedUpTo(), finished);
        }

        /// Deletes blobs. Meanwhile nothing is written that could refer to a blob, and the reverse.
        private void deleteBlobs() {
            boolean writing = points.underWay() || points.inWork() || pipeline.saving();
            if (deletion != Deletion.IDLE || writing || run.garbage().isEmpty()) return;
            deletion = Deletion.RUNNING;
            effects.add(new RunEffect.DeleteBlobs(run.garbage()));
        }

        /// Takes the next action; false: there is no action until the next input.
        private boolean next() {
            boolean deleting = deletion == Deletion.RUNNING;
            if (run.closed()) return false;
            if (leaving) return quiet() && !departed() && !deleting && takePoint();
            if (waitsInVain() && giveUpUnloaded()) return true;
            if (resultsOverLimit) points = points.want();
            if (pointDue() && !deleting) return takePoint();
            if (evicting && engine == Engine.OPEN && !points.paused() && pipeline.load() == 0)
                return evict();
            skipSettled();
            Optional<PendingOperation> next = run.at(pipeline.sent() + 1);
            if (next.isEmpty()) return false;
            PendingOperation operation = next.get();
            if (run.setAside().filter(s -> s.holds(operation.position())).isPresent()) return failSetAside();
            // Whether operations after a load may be executed depends on its outcome.
            if (pipeline.load() != 0) return false;
            boolean load = operation.kind() == OperationKind.LOAD_STATE;
            Optional<Fault> blocked = load ? Optional.empty() : run.blockedBy(operation.position())
                    .filter(_ -> operation.fault().isEmpty());
            if (blocked.isPresent()) return persistSoon(run.allBlocked(operation.position(), blocked.get()));
            if (operation.operation() instanceof StoredOperation.Refused(_, var why))
                return persistSoon(List.of(new OperationFailed(operation.position(), why)));
            if (load && !pipeline.idle()) return false;
            if (load && operation.outcome() instanceof Outcome.Open) return resolve(operation);
            if (engine != Engine.OPEN) return open();
            if (pipeline.full(operation, settings) || deleting && operation.saves()) return false;
            if (resultsOverLimit && pipeline.sent() > run.recovery().position()) return false;
            if (tooFarAhead(operation)) return wantPoint();
            return replayed(operation);
        }

        private void skipSettled() {
            while (run.at(pipeline.sent() + 1).filter(PendingOperation::settled).isPresent())
                pipeline = pipeline.skip(pipeline.sent() + 1);
        }

        private boolean replayed(PendingOperation operation) {
            long position = operation.position();
            return switch (replay.judge(run, position, executedUpTo(), pipeline.idle())) {
                case ReplayPolicy.Verdict.Execute(var alone) -> send(operation, alone);
                case ReplayPolicy.Verdict.WaitForEarlier _, ReplayPolicy.Verdict.Delayed _ -> false;
                case ReplayPolicy.Verdict.Delay(var time) -> {
                    replay = replay.delaying();
                    stuck().ifPresent(t -> stalled = Optional.of(ReplayPolicy.stuck(t.why())));
                    start(new RunTimer.Attempt(epoch, position), time);
                    yield false;
                }
                case ReplayPolicy.Verdict.SetAside(var event) -> persistSoon(List.of(event));
            };
        }

        /// An operation that was set aside fails as soon as its owner, having been told, has gone on; with it
        /// those that were accepted before. One whose replay differs only if its owner gives it up.
        private boolean failSetAside() {
            TrainingRun.SetAside aside = run.setAside().orElseThrow();
            return (unloading || ownerWentOn(run, aside)) && persistSoon(givenUp(aside));
        }

        /// Whether the owner's request is about the operation at `position`.
        private boolean means(Optional<Long> seq, long position) {
            return seq.isEmpty() || run.at(position).map(PendingOperation::seq).equals(seq);
        }

        /// The events with which the owner gives up the operation that waits for it; empty: none does.
        private List<RunEvent> givenUp() {
            return run.setAside().map(this::givenUp).orElseGet(this::waitingGivenUp);
        }

        /// The failure of the operation that the owner can give up, without those of others that it causes.
        private Optional<OperationFailed> toGiveUp() {
            return givenUp().stream().findFirst().map(OperationFailed.class::cast);
        }

        private List<RunEvent> givenUp(TrainingRun.SetAside aside) {
            return List.of(run.failed(aside.position(), aside.why()),
                    new ErrorSeen(aside.until().filter(_ -> !aside.differs()).orElse(run.accepted())));
        }

        /// The events with which the owner gives up what waits: an operation that is stuck in its replay, or
        /// what was never executed. Empty: nothing waits so.
        private List<RunEvent> waitingGivenUp() {
            return stuck().flatMap(t -> run.at(t.position())
                    .filter(PendingOperation::needsInput).map(o -> run.givenUp(o, t.why())))
                    .orElseGet(this::unexecutedGivenUp);
        }

        /// The first operation that was never executed to its end fails, and so do those that would train
        /// past it. What was executed before keeps its outcome. Empty: nothing waits, or all was executed.
        private List<RunEvent> unexecutedGivenUp() {
            return replay.waitsFor(run).flatMap(why -> unexecuted().map(o -> run.givenUp(o, why)))
                    .orElse(List.of());
        }

        /// The first operation without an outcome that was never executed to its end.
        private Optional<PendingOperation> unexecuted() {
            long executed = executedUpTo();
            return run.pending().stream().filter(o -> o.position() > executed && o.needsInput()
                    && !finished.contains(o.position())).findFirst();
        }

        /// Whether the run is to be unloaded and has met the same fault so often that it does not wait any
        /// more: a store is away, or a blob that a replay or the opening needs is gone.
        private boolean waitsInVain() {
            return unloading && replay.waitsInVainFor(run).isPresent();
        }

        private boolean giveUpUnloaded() {
            return unexecuted().filter(o -> o.position() > pipeline.sent()).isPresent()
                    && persistSoon(unexecutedGivenUp());
        }

        private boolean open() {
            if (engine != Engine.CLOSED) return false;
            engine = Engine.OPENING;
            effects.add(new RunEffect.OpenRun());
            return false;
        }

        /// Closes the run in the engine as soon as everything that was executed is durable. [#pointDue]
        /// requests the point for that.
        private boolean evict() {
            if (!pipeline.idle() || points.inWork() || unsaved()) return false;
            engine = Engine.CLOSED;
            evicting = false;
            effects.add(new RunEffect.CloseRun());
            report(new Occurrence.Evicted());
            return true;
        }

        private boolean resolve(PendingOperation load) {
            if (pipeline.resolving() == load.position()) return false;
            pipeline = pipeline.resolving(load.position());
            effects.add(new RunEffect.ResolveLoad(epoch, load, 1));
            return false;
        }

        private boolean send(PendingOperation operation, boolean alone) {
            pipeline = pipeline.send(operation);
            points = points.sent(operation);
            if (alone) stalled = Optional.empty(); // the delay is over
            Optional<CheckpointManifest> loaded = switch (operation.outcome()) {
                case Outcome.Resolved(var manifest) -> Optional.of(manifest);
                case Outcome.Applied(var manifest) -> Optional.of(manifest);
                case Outcome.Open _, Outcome.Committed _, Outcome.Failed _, Outcome.Dropped _ ->
                        Optional.empty();
            };
            effects.add(new RunEffect.Execute(operation, loaded, alone));
            return true;
        }

        private boolean pointDue() {
            boolean due = points.due(settings)
                    || evicting && pipeline.idle() && unsaved();
            return due && engine == Engine.OPEN && !points.inWork() && !points.paused()
                    && pipeline.load() == 0 && pipeline.sent() > run.recovery().position();
        }

        private boolean takePoint() {
            points = points.taken(pipeline.sentBytes());
            effects.add(new RunEffect.TakeRecoveryPoint(pipeline.sent()));
            return true;
        }

        /// Whether a recovery would have to replay more than the limit.
        private boolean tooFarAhead(PendingOperation operation) {
            long ahead = pipeline.sent() - run.recovery().position();
            long bytes = pipeline.sentBytes() - points.durableBytes() + operation.operation().bytes();
            return ahead >= settings.pointMaxOperations() || ahead > 0 && bytes > settings.pointMaxBytes();
        }

        private boolean wantPoint() {
            if (points.inWork() || points.wanted()) return false;
            points = points.want();
            return true;
        }

        // Queries

        /// Whether the engine has answered everything, and no load is being resolved.
        private boolean quiet() {
            return pipeline.idle() && !points.inWork() && pipeline.resolving() == 0;
        }

        /// Whether the run can be closed in the engine without a later replay.
        private boolean departed() {
            return quiet() && (engine != Engine.OPEN || pipeline.sent() == run.recovery().position());
        }

        /// Whether a recovery from the last point would replay an operation.
        private boolean unsaved() {
            return run.pending().stream()
                    .anyMatch(o -> o.position() <= pipeline.sent() && !o.settled());
        }

        /// The number of operations without an outcome. If a run that waits in vain is to be unloaded, those
        /// that were executed before are not replayed for their results, which end with the run.
        private int unfinished() {
            long outcomes = waitsInVain() ? executedUpTo() : 0;
            return (int) run.pending().stream()
                    .filter(o -> o.position() > outcomes && !finished.contains(o.position())).count();
        }

        // Effects

        private void answered(long position) {
            pipeline = pipeline.answered(position);
        }

        private void finish(FinishedOperation outcome) {
            effects.add(new RunEffect.Finish(outcome, !finished.contains(outcome.position())));
            finished = finished.with(outcome.position());
        }

        private void saveIndexed(long position) {
            if (!unindexed.contains(position)) return;
            unindexed = unindexed.without(position);
            PendingOperation save = run.at(position).orElseThrow();
            if (save.outcome() instanceof Outcome.Committed(var manifest))
                finish(FinishedOperation.success(save, new OperationResult.Saved(manifest)));
        }

        private boolean persistSoon(List<RunEvent> events) {
            persistDue = true;
            effects.add(new RunEffect.PersistSoon(epoch, events));
            return true;
        }

        private void persist(RunEvent event) {
            persist(List.of(event));
        }

        private void persist(List<RunEvent> events) {
            if (events.isEmpty()) return;
            persisting = true;
            effects.add(new RunEffect.Persist(events));
        }

        private void start(RunTimer timer, Duration after) {
            effects.add(new RunEffect.StartTimer(timer, after));
        }

        private void report(Occurrence occurrence) {
            effects.add(new RunEffect.Report(occurrence));
        }
    }
}
