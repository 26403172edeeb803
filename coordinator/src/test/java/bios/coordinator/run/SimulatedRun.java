package bios.coordinator.run;

import bios.coordinator.run.RunEvent.*;
import bios.coordinator.run.SchedulerSimulation.Nature;
import bios.coordinator.run.SchedulerSimulation.Violation;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.protocol.run.OperationKind;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.run.WaitingOperation;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;

/// One run of a [SchedulerSimulation]: its journal, the part of its entity around [RunScheduler], the
/// sessions of the model engine, its client, and the oracle.
final class SimulatedRun {
    private static final LoraSpec LORA = new LoraSpec(8, 32, 7, List.of(TargetModule.Q));
    private static final long NEW = 17;

    /// The oracle's record of an accepted operation.
    private static final class Operation {
        final OperationKind kind;
        final Nature nature;
        Optional<CheckpointManifest> loads = Optional.empty();
        boolean failed;
        /// Whether it is a step in whose place the engine drops the gradient sum.
        boolean drops;
        boolean saved;
        boolean told;
        boolean aside;
        boolean retried;
        int faults;
        int deaths;
        /// How often its replay failed though it was executed before.
        int differed;

        Operation(OperationKind kind, Nature nature) {
            this.kind = kind;
            this.nature = nature;
        }
    }

    /// The state of one session in the engine.
    private final class Session {
        final long epoch;
        final Deque<RunEffect> commands = new ArrayDeque<>();
        final Deque<EngineEvent> answers = new ArrayDeque<>();
        final Deque<Point> points = new ArrayDeque<>();
        int answersMade;
        int answersGiven;
        final Set<Long> outstanding = new HashSet<>();
        boolean asked;
        boolean open;
        /// Whether the engine has lost or refused the state.
        boolean gone;
        /// Whether an operation met a fault that is not its own.
        boolean interrupted;
        long given;
        /// Bytes of the operations that were given in this session, by position.
        final SortedMap<Long, Long> bytes = new TreeMap<>();
        long load;
        int pointsInWork;
        int opens;
        long openAt;
        long state;
        long position;

        Session(long epoch) {
            this.epoch = epoch;
        }

        void answer(EngineEvent event) {
            answers.add(event);
            answersMade++;
        }

        /// Removes the next answer, if one is ready.
        Optional<EngineEvent> take() {
            boolean point = !points.isEmpty() && points.peek().after() <= answersGiven;
            if (point && (answers.isEmpty() || simulation.oneIn(2)))
                return Optional.of(points.poll().event());
            if (!answers.isEmpty()) answersGiven++;
            return Optional.ofNullable(answers.poll());
        }
    }

    /// The engine's answer to a request for a recovery point. It may be sent after later answers, never
    /// before earlier ones.
    ///
    /// @param after number of answers that are sent before it
    private record Point(int after, EngineEvent event) {}

    private final SchedulerSimulation simulation;
    private final RunId id;
    private final int wanted;
    private final List<Operation> operations = new ArrayList<>();
    private final Set<BlobId> blobs = new HashSet<>();
    private final boolean unloads;
    private TrainingRun run = TrainingRun.NONE;
    // State of one entity
    private RunScheduler scheduler;
    private final Deque<RunInput> mailbox = new ArrayDeque<>();
    private final List<Runnable> work = new ArrayList<>();
    private final List<RunTimer> timers = new ArrayList<>();
    private final List<Session> old = new ArrayList<>();
    private Session session;
    private final Set<Long> finished = new HashSet<>();
    private boolean deleting;
    private boolean overLimit;
    private boolean pointPaused;
    private boolean deletionPaused;
    private boolean openPaused;
    private boolean leaving;
    private boolean mayLoseWork;
    private boolean passivated;
    private boolean unloadAnswered;
    private boolean stopped;
    private int lives;
    private boolean attemptElapsed;
    /// Whether the owner is giving something up.
    private boolean givesUp;
    /// The faults of what was stuck and given up.
    private final Set<Fault> stuck = new HashSet<>();
    /// How often the engine had no memory to open the run since it was last opened.
    private int refusals;

    SimulatedRun(SchedulerSimulation simulation, int number, int wanted) {
        this.simulation = simulation;
        this.wanted = wanted;
        id = new RunId("usf-finance-9f2c4be01a0" + number);
        unloads = simulation.oneIn(4);
        var config = new RunConfig(id, "alice", new ModelName("usf/finance"), LORA, true, Optional.empty(),
                "{}", "session-1", 1);
        run = run.apply(new RunCreated(config), 8);
    }

    private void check(boolean holds, String otherwise) {
        if (!holds) throw new Violation(otherwise);
    }

    // The entity

    /// Starts an entity. The state of the entity before is lost; its requests may still be executed.
    void start() {
        lives++;
        scheduler = RunScheduler.initial(simulation.settings);
        mailbox.clear();
        work.clear();
        timers.clear();
        old.clear();
        session = null;
        finished.clear();
        deleting = overLimit = pointPaused = deletionPaused = openPaused = leaving = mayLoseWork = false;
        passivated = stopped = false;
        refusals = 0;
        deliver(new RunInput.Recovered());
        if (scheduler.active()) return;
        var events = new ArrayList<RunEvent>(List.of(new EntityBegan(lives)));
        simulation.register.report(id).filter(run::learnsFrom).map(WorkerDied::new).ifPresent(events::add);
        persist(events);
    }

    private void deliver(RunInput input) {
        simulation.trace(id + " " + input);
        boolean stale = stale(input);
        if (input instanceof RunInput.ResultsNotWritten && !stale) {
            session.pointsInWork--;
            mayLoseWork |= leaving;
        }
        long epoch = scheduler.epoch();
        var transition = scheduler.step(run, input);
        scheduler = transition.next();
        List<RunEffect.Persist> persists = new ArrayList<>();
        Session before = session;
        for (RunEffect effect : transition.effects()) {
            simulation.trace(id + "   " + effect);
            if (effect instanceof RunEffect.Persist persist) persists.add(persist);
            else execute(effect);
        }
        check(persists.size() <= 1, "persists twice in one step");
        check(persists.isEmpty() || !(input instanceof RunInput.Stored), "persists after Stored at once");
        check(!stale || persists.isEmpty(), "a stale input has events stored");
        check(!stale || epoch == scheduler.epoch()
                && before == session, "a stale input ends a session");
        if (!persists.isEmpty()) persist(persists.getFirst().events());
        judgeRest();
    }

    private boolean stale(RunInput input) {
        return switch (input) {
            case RunInput.FromEngine(var at, _) -> at != scheduler.epoch();
            case RunInput.PersistDue(var at, _) -> at != scheduler.epoch();
            case RunInput.ResultsWritten(var at, _, _) -> at != scheduler.epoch();
            case RunInput.ResultsNotWritten(var at, _) -> at != scheduler.epoch();
            case RunInput.LoadFound(var at, _, _, _) -> at != scheduler.epoch();
            case RunInput.LoadFailed(var at, _, _) -> at != scheduler.epoch();
            case RunInput.LoadUnanswered(var at, _, _, _) -> at != scheduler.epoch();
            default -> false;
        };
    }

    private void persist(List<RunEvent> events) {
        boolean fails = simulation.fault(1) && simulation.oneIn(4);
        if (!fails || simulation.oneIn(2)) for (RunEvent event : events) {
            judge(event);
            run = run.apply(event, 8);
        }
        if (fails) {
            simulation.trace(id + " the journal fails");
            start();
        } else deliver(new RunInput.Stored(events));
    }

    private void execute(RunEffect effect) {
        switch (effect) {
            case RunEffect.Persist _ -> throw new IllegalStateException();
            case RunEffect.PersistSoon(var epoch, var events) ->
                mailbox.add(new RunInput.PersistDue(epoch, events));
            case RunEffect.StartSession(var epoch) -> {
                if (session != null) old.add(session);
                session = new Session(epoch);
                openPaused = attemptElapsed = false;
            }
            case RunEffect.OpenRun _ -> open(effect);
            case RunEffect.CloseRun _ -> closeRun();
            case RunEffect.Execute e -> execute(e);
            case RunEffect.TakeRecoveryPoint(var position) -> takePoint(effect, position);
            case RunEffect.ResolveLoad load -> work.add(() -> resolve(load));
            case RunEffect.WriteResults write -> writeResults(write);
            case RunEffect.DeleteBlobs(var unused) -> delete(unused);
            case RunEffect.StartTimer(var timer, _) -> start(timer);
            case RunEffect.Finish(var outcome, var first) -> finish(outcome, first);
            case RunEffect.IndexSave(var position) ->
                work.add(() -> mailbox.add(new RunInput.SaveIndexed(position)));
            case RunEffect.Unload _ -> mailbox.add(new RunInput.UnloadDue(simulation.steps));
            case RunEffect.AnswerUnload _ -> {
                check(run.closed(), "answers an unloading before the run is closed");
                unloadAnswered = true;
            }
            case RunEffect.Passivate _ -> {
                check(run.pending().stream().allMatch(o -> o.settled() || run.setAside().filter(a ->
                        a.holds(o.position())).isPresent()), "is passivated with work to replay");
                passivated = true;
            }
            case RunEffect.Stop _ -> stop();
            case RunEffect.Report(var occurrence) -> check(!(occurrence
                    instanceof RunEffect.Occurrence.Evicted) || unsettledExecuted(session.given) == 0,
                    "is evicted with work to replay");
        }
    }

    private void closeRun() {
        check(session.asked, "closes a run that is not open");
        session.commands.clear();
        session.asked = session.open = false;
        session.outstanding.clear();
        session.load = 0;
        session.pointsInWork = 0;
    }

    private void writeResults(RunEffect.WriteResults write) {
        check(!deleting, "writes results while blobs are deleted");
        check(positionsFinished(write.point().position()), "keeps a point before all is finished");
        work.add(() -> mailbox.add(simulation.fault(2)
                ? new RunInput.ResultsNotWritten(write.epoch(), "no room")
                : new RunInput.ResultsWritten(write.epoch(), write.point(), List.of())));
    }

    private void start(RunTimer timer) {
        timers.removeIf(running -> running.getClass() == timer.getClass());
        timers.add(timer);
        switch (timer) {
            case RunTimer.Reopen _ -> openPaused = true;
            case RunTimer.RetryRecoveryPoint _ -> pointPaused = true;
            case RunTimer.RetryDeletion _ -> deletionPaused = true;
            default -> {}
        }
    }

    private void elapse() {
        RunTimer timer = timers.remove(simulation.between(0, timers.size() - 1));
        switch (timer) {
            case RunTimer.Reopen(var at) -> {
                if (at == scheduler.epoch()) openPaused = false;
            }
            case RunTimer.RetryRecoveryPoint _ -> pointPaused = false;
            case RunTimer.RetryDeletion _ -> deletionPaused = false;
            case RunTimer.Attempt(var at, _) -> attemptElapsed |= at == scheduler.epoch();
            case RunTimer.LeaveDeadline _ -> mayLoseWork = true;
            default -> {}
        }
        deliver(timer instanceof RunTimer.Idle ? new RunInput.IdleElapsed(false, true)
                : new RunInput.TimerElapsed(timer));
    }

    private void stop() {
        check(leaving, "stops and was not asked to leave");
        boolean lossless = unsettledExecuted() == 0;
        check(mayLoseWork || lossless, "leaves before its work is durable");
        stopped = true;
    }

    /// Checks the invariants between two steps of the scheduler.
    private void judgeRest() {
        if (session == null || stopped) return;
        check(!scheduler.resident() || session.asked,
                "is resident in an engine that was not asked to open it");
    }

    // The engine

    private void open(RunEffect effect) {
        check(!session.asked, "opens the run twice");
        check(!openPaused, "opens again before the retry delay has elapsed");
        check(!run.closed(), "opens a closed run");
        run.recovery().state().ifPresent(state ->
                check(blobs.contains(state.id()), "has lost the blob of its recovery point"));
        session.asked = true;
        session.openAt = run.recovery().position();
        session.given = session.openAt;
        session.bytes.clear();
        session.state = run.recovery().state().map(SimulatedRun::number).orElse(NEW);
        session.commands.add(effect);
    }

    private void execute(RunEffect.Execute effect) {
        PendingOperation operation = effect.operation();
        long position = operation.position();
        Operation known = operations.get((int) position - 1);
        boolean load = operation.kind() == OperationKind.LOAD_STATE;
        check(session.open, "gives an operation to an engine that has not opened the run");
        check(position > session.given, "gives " + position + " after " + session.given);
        for (long at = session.given + 1; at < position; at++)
            check(at <= run.recovery().position()
                    || run.at(at).filter(PendingOperation::settled).isPresent(), "passes over " + at);
        check((!known.failed || known.drops) && !known.saved,
                "gives " + position + " although it is settled");
        check(known.drops == operation.executed() instanceof StoredOperation.Refused,
                "gives a step instead of the dropping of a sum at " + position);
        check(session.load == 0, "gives " + position + " behind a load in work");
        check(!load || session.outstanding.isEmpty(), "gives a load beside others");
        check(!load || effect.loaded().equals(known.loads) && known.loads.isPresent(),
                "gives a load without what it loads");
        check(load || known.drops || run.blockedBy(position).isEmpty(),
                "gives " + position + " past a failure");
        check(!deleting || !operation.saves(), "saves while blobs are deleted");
        check(!leaving, "gives an operation while it leaves");
        check(!overLimit || session.given <= run.recovery().position(), "goes on while results are too many");
        long ahead = session.given - run.recovery().position();
        check(ahead < simulation.settings.pointMaxOperations(), "goes too far past the recovery point");
        long replayed = operation.operation().bytes()
                + session.bytes.tailMap(run.recovery().position() + 1).values().stream()
                        .mapToLong(Long::longValue).sum();
        check(ahead == 0 || replayed <= simulation.settings.pointMaxBytes(),
                "goes too many bytes past the recovery point");
        session.bytes.put(position, operation.operation().bytes());
        long bytes = session.outstanding.stream()
                .mapToLong(at -> run.at(at).orElseThrow().operation().bytes()).sum();
        check(session.outstanding.size() < simulation.settings.window(), "exceeds the window");
        check(bytes == 0 || bytes + operation.operation().bytes() <= simulation.settings.windowBytes(),
                "exceeds the window's bytes");
        judgeReplay(effect, position);
        session.given = position;
        session.outstanding.add(position);
        if (load) session.load = position;
        session.commands.add(effect);
    }

    /// Checks that an operation during which a worker ended is executed alone, and after a delay if it was
    /// alone then too.
    private void judgeReplay(RunEffect.Execute effect, long position) {
        check(run.setAside().filter(a -> a.holds(position)).isEmpty(), "gives " + position
                + ", which is set aside or waits for such a one");
        boolean suspected = run.suspect().filter(s -> s.position() == position).isPresent();
        check(suspected == effect.alone(), "executes " + position + " alone: " + effect.alone());
        check(!suspected || session.outstanding.isEmpty(), "replays " + position + " alone beside others");
        check(!suspected || run.deathsAlone() == 0 || attemptElapsed, "tries " + position + " again at once");
    }

    private void takePoint(RunEffect effect, long position) {
        check(session.open, "takes a point of a run that is not open");
        check(session.pointsInWork == 0, "takes two recovery points at once");
        check(!pointPaused || leaving, "takes a point before the retry delay has elapsed");
        check(!deleting, "takes a point while blobs are deleted");
        check(position >= session.given && position > run.recovery().position(), "takes a point too early");
        check(session.load == 0, "takes a point behind a load in work");
        session.pointsInWork++;
        session.commands.add(effect);
    }

    private void delete(List<BlobId> unused) {
        check(!deleting, "deletes blobs twice at once");
        check(!deletionPaused, "deletes before the retry delay has elapsed");
        check(session.pointsInWork == 0 && scheduler.points().written().isEmpty()
                && !scheduler.points().writingResults(), "deletes blobs while a point is written");
        check(session.outstanding.stream().noneMatch(at -> run.at(at).orElseThrow().saves()),
                "deletes blobs during a save");
        check(unused.stream().noneMatch(run.referenced()::contains), "deletes what is referred to");
        deleting = true;
        work.add(() -> {
            boolean fails = simulation.fault(3);
            if (!fails || simulation.oneIn(2)) blobs.removeAll(unused);
            deleting = false;
            deliver(fails ? new RunInput.BlobsNotDeleted("not now") : new RunInput.BlobsDeleted(unused));
        });
    }

    /// Executes the next command of the engine.
    private void work(Session s) {
        RunEffect command = s.commands.poll();
        switch (command) {
            case RunEffect.OpenRun _ -> {
                s.opens++;
                boolean full = !simulation.calm() && s.opens <= simulation.opensWithoutMemory
                        && refusals < 7;
                if (full) refusals++;
                if (full || simulation.fault(4)) s.answer(new EngineEvent.OpenFailed(id,
                        Fault.server(full ? "out_of_memory" : "not_ready", "not now " + s.opens)));
                else {
                    s.position = s.openAt;
                    s.answer(new EngineEvent.Opened(id));
                }
            }
            case RunEffect.Execute e -> executed(s, e);
            case RunEffect.TakeRecoveryPoint(var position) -> {
                boolean fails = s.gone || simulation.fault(5);
                s.points.add(new Point(s.answersMade, fails
                        ? new EngineEvent.RecoveryPointFailed(id, position, Fault.server(s.gone
                                ? EngineCommand.RUN_NOT_OPEN : "store_failed", "not now"))
                        : new EngineEvent.RecoveryPointWritten(id, position,
                                put(BlobScope.recovery(id, 0), s.state), position, LORA)));
            }
            default -> throw new IllegalStateException();
        }
    }

    private void executed(Session s, RunEffect.Execute e) {
        long position = e.operation().position();
        Operation operation = operations.get((int) position - 1);
        if (simulation.fault(6) && simulation.oneIn(8)) s.gone = true;
        if (s.gone) {
            s.answer(new EngineEvent.Failed(id, position,
                    Fault.server(EngineCommand.RUN_NOT_OPEN, "lost")));
            return;
        }
        if (operation.nature == Nature.DEADLY) {
            operation.deaths++;
            check(!operation.aside || operation.retried, position + " kills after it was set aside");
            // Each other end of the process may start the count again.
            check(operation.deaths <= (simulation.settings.attempts() + 2) * (simulation.randomDeaths + 2),
                    position + " kills again and again");
            simulation.killedBy(new SimulatedRegister.Mark(id, position), e.alone());
            return;
        }
        if (simulation.fault(7)) {
            s.answer(new EngineEvent.Failed(id, position,
                    Fault.server(EngineCommand.STORE_FAILED, "not now")));
            s.interrupted = true;
            return;
        }
        boolean again = operation.differed > 0 && !operation.retried && !simulation.calm();
        if (simulation.strict && operation.told && !operation.failed && (again || simulation.fault(15))) {
            operation.differed++;
            s.interrupted = true;
            s.answer(new EngineEvent.Failed(id, position, Fault.user("bad_data", "not by these settings")));
            return;
        }
        s.position = position;
        if (operation.nature != Nature.GOOD) {
            if (operation.nature == Nature.TOO_LARGE) operation.faults++;
            s.interrupted = true;
            s.answer(new EngineEvent.Failed(id, position, operation.nature == Nature.BAD
                    ? Fault.user("bad_data", "bad") : Fault.server("out_of_memory", "too large")));
            return;
        }
        long before = s.state;
        s.state = e.operation().executed() instanceof StoredOperation.Refused
                ? dropped(before, position) : after(before, position, operation);
        if (!s.interrupted) simulation.register.executed(id, position);
        s.answer(new EngineEvent.Measured(id, position, 1));
        s.answer(new EngineEvent.Executed(id, position, switch (operation.kind) {
            case SAVE_STATE, SAVE_SAMPLER_WEIGHTS -> new OperationResult.Saved(manifest(before, position));
            case LOAD_STATE -> new OperationResult.Loaded("x", s.state);
            case OPTIM_STEP -> new OperationResult.Stepped(s.state, Map.of());
            case FORWARD, FORWARD_BACKWARD -> new OperationResult.Evaluated(List.of(),
                    Map.of("loss:sum", (double) s.state));
        }));
    }

    /// Delivers an answer of the engine to the entity.
    private void answer(Session s, EngineEvent event) {
        if (s == session) switch (event) {
            case EngineEvent.Opened _ -> {
                s.open = true;
                refusals = 0;
            }
            case EngineEvent.OpenFailed _ -> s.asked = false;
            case EngineEvent.Executed(_, var position, _) -> answered(s, position);
            case EngineEvent.Failed(_, var position, _) -> answered(s, position);
            case EngineEvent.RecoveryPointFailed _ -> {
                s.pointsInWork--;
                mayLoseWork |= leaving;
            }
            case EngineEvent.RecoveryPointWritten _, EngineEvent.EvictionRequested _,
                    EngineEvent.Measured _, EngineEvent.StateNotFinite _ -> {}
        }
        deliver(new RunInput.FromEngine(s.epoch, event));
    }

    private static void answered(Session s, long position) {
        s.outstanding.remove(position);
        if (s.load == position) s.load = 0;
    }

    private void resolve(RunEffect.ResolveLoad load) {
        long position = load.operation().position();
        if (simulation.fault(8)) {
            mailbox.add(new RunInput.LoadUnanswered(load.epoch(), position, load.attempt(),
                    Fault.server("checkpoint_unavailable", "nobody answers")));
            return;
        }
        List<CheckpointManifest> have = run.checkpoints().versions();
        mailbox.add(have.isEmpty() || simulation.oneIn(6)
                ? new RunInput.LoadFailed(load.epoch(), position, Fault.user("checkpoint_not_found", "none"))
                : new RunInput.LoadFound(load.epoch(), position, true, simulation.any(have)));
    }

    // The oracle

    private static long number(BlobRef blob) {
        return Long.parseLong(blob.id().sha256().substring(48), 16);
    }

    private BlobRef put(String scope, long state) {
        var blob = new BlobRef(new BlobId(scope, "%064x".formatted(state)), 10);
        blobs.add(blob.id());
        return blob;
    }

    private CheckpointManifest manifest(long state, long position) {
        BlobRef blob = put(BlobScope.checkpoints(id, 0), state);
        return new CheckpointManifest(id, CheckpointKind.TRAINING,
                Optional.of(new CheckpointName("c" + position % 3)), new ModelName("usf/finance"), LORA,
                blob.id().sha256(), blob, Optional.of(blob), position, AdamParams.DEFAULT, "adamw", "{}",
                Optional.empty(), position, Optional.empty());
    }

    private static long after(long state, long position, Operation operation) {
        return switch (operation.kind) {
            case FORWARD_BACKWARD, OPTIM_STEP -> (state * 31 + position) * 2_654_435_761L % 1_000_003L + 1;
            case LOAD_STATE -> number(operation.loads.orElseThrow().adapter());
            case FORWARD, SAVE_STATE, SAVE_SAMPLER_WEIGHTS -> state;
        };
    }

    /// The state after the gradient sum was dropped at a position.
    private static long dropped(long state, long position) {
        return (state * 37 + position) * 2_654_435_761L % 1_000_003L + 1;
    }

    /// The state after a position if each operation that did not fail is executed once, in order.
    private long state(long position) {
        long state = NEW;
        for (int at = 1; at <= position; at++) {
            Operation operation = operations.get(at - 1);
            if (operation.drops) state = dropped(state, at);
            else if (!operation.failed) state = after(state, at, operation);
        }
        return state;
    }

    private boolean positionsFinished(long position) {
        for (long at = run.recovery().position() + 1; at <= position; at++)
            if (!finished.contains(at)) return false;
        return true;
    }

    private int unsettled() {
        return (int) run.pending().stream().filter(o -> !o.settled()).count();
    }

    private int unsettledExecuted() {
        return scheduler.resident() && session.open ? unsettledExecuted(session.given) : 0;
    }

    private int unsettledExecuted(long until) {
        return (int) run.pending().stream().filter(o -> !o.settled() && o.position() <= until).count();
    }

    /// An operation that the device may be executing now.
    Optional<SimulatedRegister.Mark> working() {
        return session == null || session.outstanding.isEmpty() ? Optional.empty()
                : Optional.of(new SimulatedRegister.Mark(id, session.outstanding.stream().min(Long::compare)
                        .orElseThrow()));
    }

    private void finish(FinishedOperation outcome, boolean first) {
        long position = outcome.position();
        Operation operation = operations.get((int) position - 1);
        check(first == finished.add(position), "counts " + position + " wrongly");
        check(outcome.fault().isPresent() == operation.failed, position + " gets another outcome");
        if (outcome.result().isEmpty()) return;
        check(operation.nature == Nature.GOOD, position + " succeeds and cannot");
        operation.told = true;
        simulation.register.executed(id, position);
        switch (outcome.result().get()) {
            case OperationResult.Evaluated(_, var metrics) -> check(metrics.get("loss:sum")
                    == state(position), "the result of " + position + " is of another state");
            case OperationResult.Stepped(var state, _) ->
                check(state == state(position), "the step at " + position + " is of another state");
            case OperationResult.Loaded(_, var state) ->
                check(state == state(position), "the load at " + position + " is of another state");
            case OperationResult.Saved _ -> check(operation.saved, "a save is told before it is stored");
            case OperationResult.EvaluatedMatrix _ ->
                    throw new IllegalStateException("a result of no operation here");
        }
    }

    /// Checks an event before it is added to the journal.
    private void judge(RunEvent event) {
        switch (event) {
            case OperationFailed(var at, var why, _, var drops, _) -> failed(at, why, drops.isPresent());
            case LoadResolved(var at, var manifest) -> {
                check(operations.get((int) at - 1).loads.isEmpty(), "resolves " + at + " twice");
                operations.get((int) at - 1).loads = Optional.of(manifest);
            }
            case CheckpointCommitted(var at, var manifest, _, _) -> {
                check(blobs.contains(manifest.adapter().id()), "commits a save whose blob is gone");
                check(number(manifest.adapter()) == state(at - 1), "saves another state at " + at);
                operations.get((int) at - 1).saved = true;
            }
            case RecoveryPointReached e -> {
                check(blobs.contains(e.state().id()), "has a point whose blob is gone");
                check(number(e.state()) == state(e.position()), "has a point of another state");
                session.pointsInWork--;
            }
            case LoadApplied(var at, _) -> check(run.blocking().isPresent()
                    || run.at(at).orElseThrow().outcome() instanceof PendingOperation.Outcome.Resolved,
                    "applies the load at " + at + " twice");
            case OperationSetAside(var at, var why, _) -> setAside(operations.get((int) at - 1), at, why);
            case OperationRetried(var at, _) -> operations.get((int) at - 1).retried = true;
            case RunClosed _ -> {
                // A run that waits in vain is closed although it was not replayed.
                long given = scheduler.replay().waitsInVainFor(run).isPresent()
                        ? scheduler.executed(run) : run.recovery().position();
                for (int at = 1; at <= operations.size(); at++)
                    check(finished.contains((long) at) || at <= given,
                            "is closed before " + at + " has an outcome");
            }
            default -> {}
        }
    }

    private void setAside(Operation operation, long at, Fault why) {
        boolean differs = why.code().equals(ReplayPolicy.REPLAY_DIFFERS);
        check(!operation.failed && !operation.saved && (!operation.told || differs),
                at + " is set aside and has an outcome");
        int attempts = simulation.settings.attempts();
        check(switch (why.code()) {
            case ReplayPolicy.REPLAY_DIFFERS -> operation.differed >= attempts;
            case "out_of_memory" -> operation.nature == Nature.TOO_LARGE && operation.faults >= attempts;
            // Some of the ends during it may have been random.
            case ReplayPolicy.WORKER_LOST -> operation.nature == Nature.DEADLY && operation.deaths > 0;
            default -> false;
        }, at + " is set aside for no reason: " + why.code());
        operation.aside = true;
    }

    private void failed(long at, Fault why, boolean drops) {
        Operation operation = operations.get((int) at - 1);
        check(!operation.failed && !operation.saved, at + " fails although it is settled");
        // Only its owner's decision changes an outcome that was told.
        boolean differs = why.code().equals(ReplayPolicy.REPLAY_DIFFERS);
        check(!operation.told || differs || stuck.contains(why), at + " fails after its result was told");
        boolean blocked = run.blockedBy(at).filter(why::equals).isPresent();
        boolean legitimate = blocked || switch (why.code()) {
            case "bad_data" -> operation.nature == Nature.BAD;
            case ReplayPolicy.REPLAY_DIFFERS ->
                operation.aside && (givesUp || scheduler.unloading());
            case ReplayPolicy.WORKER_LOST -> operation.aside || stuck.contains(why);
            case "out_of_memory", "not_ready" -> operation.aside || givesUp || scheduler.unloading();
            case "checkpoint_not_found" -> operation.kind == OperationKind.LOAD_STATE;
            case EngineCommand.STORE_FAILED, ReplayPolicy.UNAVAILABLE -> givesUp || scheduler.unloading();
            default -> false;
        };
        check(legitimate, at + " fails for no reason: " + why.code());
        boolean rest = blocked && operation.kind == OperationKind.OPTIM_STEP && lacksPart();
        check(drops == rest, "the step at " + at + " drops the rest of a batch: " + drops);
        operation.failed = true;
        operation.drops = drops;
    }

    /// Whether what blocks the run is a pass that failed, or a load that failed behind one.
    private boolean lacksPart() {
        TrainingRun.BlockingFailure blocking = run.blocking().orElseThrow();
        OperationKind cause = operations.get((int) blocking.position() - 1).kind;
        return cause == OperationKind.FORWARD_BACKWARD
                || cause == OperationKind.LOAD_STATE && blocking.lacksPart().isPresent();
    }

    // The client and random actions

    /// Executes one random action that is possible now.
    void act() {
        if (stopped) {
            start();
            return;
        }
        switch (simulation.between(0, 11)) {
            case 0, 1 -> client();
            case 2, 3, 4 -> {
                if (!mailbox.isEmpty()) deliver(mailbox.poll());
            }
            case 5 -> {
                if (!work.isEmpty()) work.remove(simulation.between(0, work.size() - 1)).run();
            }
            case 6, 7 -> {
                if (!session.commands.isEmpty()) work(session);
            }
            case 8 -> {
                Session now = session;
                now.take().ifPresent(event -> answer(now, event));
            }
            case 9, 10 -> late();
            default -> {
                boolean quiet = mailbox.isEmpty() && work.isEmpty() && session.commands.isEmpty()
                        && session.answers.isEmpty() && session.points.isEmpty();
                if (!timers.isEmpty() && (quiet || simulation.oneIn(12))) elapse();
                else faults();
            }
        }
    }

    /// Delivers an answer of an earlier session.
    private void late() {
        if (old.isEmpty()) return;
        Session s = simulation.any(old);
        if (!s.commands.isEmpty() && simulation.oneIn(2)) lateWork(s);
        s.take().ifPresent(event -> answer(s, event));
    }

    private void lateWork(Session s) {
        if (s.commands.peek() instanceof RunEffect.Execute e
                && operations.get((int) e.operation().position() - 1).nature == Nature.DEADLY)
            s.commands.clear();
        else work(s);
    }

    private void faults() {
        if (simulation.fault(9)) {
            overLimit = !overLimit;
            deliver(new RunInput.ResultsOverLimit(overLimit));
        } else if (overLimit && simulation.calm()) {
            overLimit = false;
            deliver(new RunInput.ResultsOverLimit(false));
        } else if (simulation.fault(10)) deliver(new RunInput.RecoveryPointWanted());
        else if (simulation.fault(11)) answer(session, new EngineEvent.EvictionRequested(id));
        else if (simulation.fault(12) && simulation.oneIn(4)) {
            leaving = true;
            deliver(new RunInput.LeaveRequested());
        } else if (simulation.fault(13) && simulation.oneIn(6)) {
            session.gone = true;
            deliver(new RunInput.EngineStopped());
        } else if (simulation.fault(14)) deliver(new RunInput.IdleElapsed(false, true));
    }

    private void client() {
        boolean more = operations.size() < wanted;
        if (run.setAside().isPresent() && (!more || simulation.oneIn(2))) {
            asideSeen();
            return;
        }
        if (simulation.impatient && mayGiveUp()) {
            giveUp();
        } else if (more && !scheduler.unloading() && !run.closed()) {
            accept();
        } else if (run.blocking().isPresent() && run.blocking().get().until().isEmpty()
                && simulation.oneIn(3)) {
            persist(List.of(new ErrorSeen(run.accepted())));
        } else if (simulation.oneIn(6) && !run.checkpoints().versions().isEmpty()) {
            var name = simulation.any(run.checkpoints().versions()).name().orElseThrow();
            persist(List.of(new CheckpointDeleted(CheckpointKind.TRAINING, name, List.of())));
        } else if (!more && unloads && !run.closed() && !scheduler.unloading() && !leaving)
            deliver(new RunInput.UnloadRequested());
        else if (!more && done() && (!passivated || unsettled() > 0) && !leaving)
            deliver(new RunInput.IdleElapsed(false, true));
    }

    /// Whether the run waits for something that may not come, and what its owner would give up was never told
    /// or is stuck.
    private boolean mayGiveUp() {
        long executed = scheduler.executed(run);
        return scheduler.stuck(run).isPresent() || scheduler.replay().waitsFor(run).isPresent()
                && run.pending().stream().noneMatch(o -> o.position() > executed
                        && operations.get((int) o.position() - 1).told);
    }

    /// The owner learns that an operation was set aside: tries it again once, gives it up, or goes on.
    private void asideSeen() {
        TrainingRun.SetAside aside = run.setAside().orElseThrow();
        boolean again = !operations.get((int) aside.position() - 1).retried && simulation.oneIn(2);
        if (again) deliver(new RunInput.RetryRequested(Optional.of(aside.position())));
        else if (operations.size() >= wanted || simulation.oneIn(3)) giveUp();
        else if (aside.until().isEmpty()) persist(List.of(new ErrorSeen(run.accepted())));
    }

    private void giveUp() {
        Optional<Long> seq = scheduler.waiting(run).map(WaitingOperation::seq);
        // A repetition about another operation changes nothing.
        Optional<TrainingRun.SetAside> aside = run.setAside();
        seq.ifPresent(number -> deliver(new RunInput.GiveUpRequested(Optional.of(number + 1))));
        check(run.setAside().equals(aside), "another operation is given up than the one that is named");
        givesUp = true;
        scheduler.stuck(run).ifPresent(t -> stuck.add(t.why()));
        deliver(new RunInput.GiveUpRequested(seq));
        givesUp = false;
    }

    private void accept() {
        OperationKind kind = switch (simulation.between(0, 9)) {
            case 0, 1, 2 -> OperationKind.FORWARD_BACKWARD;
            case 3, 4, 5 -> OperationKind.OPTIM_STEP;
            case 6 -> OperationKind.FORWARD;
            case 7, 8 -> OperationKind.SAVE_STATE;
            default -> OperationKind.LOAD_STATE;
        };
        boolean computes = kind == OperationKind.FORWARD_BACKWARD || kind == OperationKind.FORWARD;
        Nature nature = !computes || !simulation.oneIn(6) ? Nature.GOOD
                : simulation.deadly && simulation.oneIn(2) ? Nature.DEADLY
                : simulation.oneIn(2) ? Nature.BAD : Nature.TOO_LARGE;
        operations.add(new Operation(kind, nature));
        persist(List.of(new OperationAccepted(operations.size(), operations.size(),
                new StoredOperation.Inline(kind, new byte[simulation.between(1, 90)]), "d", 1,
                Optional.of(scheduler.executed(run)))));
        // If the journal failed, the operation may not be stored.
        while (operations.size() > run.accepted()) operations.removeLast();
    }

    private boolean done() {
        return run.pending().stream().allMatch(o -> finished.contains(o.position()));
    }

    /// Whether all operations of the client are finished.
    boolean over() {
        return simulation.calm() && operations.size() >= wanted && done()
                && (run.closed() || unsettled() == 0)
                && (unloads ? unloadAnswered || run.closed() : passivated && scheduler.passivating());
    }

    String waits() {
        return operations.size() + " of " + wanted + " accepted, " + unsettled() + " to replay, engine "
                + scheduler.engine() + ", done " + done() + ", closed " + run.closed();
    }

    void judgeEnd() {
        check(run.closed() || unsettled() == 0, "rests with operations behind its recovery point");
        check(run.closed() == unloads, "is closed: " + run.closed());
    }
}
