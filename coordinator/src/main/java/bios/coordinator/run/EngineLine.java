package bios.coordinator.run;

import bios.coordinator.run.Entry.Outcome;
import bios.coordinator.run.RunEvent.OperationAttempted;
import bios.coordinator.run.RunEvent.OperationFailed;
import bios.coordinator.run.RunEvent.ReplayBegan;
import bios.coordinator.run.RunEvent.ReplayFinished;
import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.OperationKind;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.BooleanSupplier;

/// What the engine has been given of a run's line, and what comes next. Lives as long as the engine's copy of
/// the run; belongs to one actor.
final class EngineLine {
    /// The next thing to do.
    sealed interface Step {
        /// Give the engine this operation.
        record Send(Entry entry, Optional<CheckpointManifest> loaded) implements Step {}

        /// Store these, then ask again.
        record Store(List<RunEvent> events) implements Step {}

        /// Find what this load loads.
        record Resolve(Entry entry) implements Step {}

        /// Ask the engine for a recovery point behind what it was given.
        record TakePoint(long position) implements Step {}

        /// Open the run in the engine.
        record Open() implements Step {}

        /// Close it there: others want its room, and all that it did is durable.
        record Close() implements Step {}

        /// Nothing until something happens.
        record Rest() implements Step {}
    }

    /// The code of an operation that is given up because its worker dies of it.
    static final String WORKER_LOST = "worker_lost";

    private final RunSettings settings;
    private final BooleanSupplier turn;
    private final TreeMap<Long, Entry> outstanding = new TreeMap<>();
    private boolean open;
    private long sent;
    private long outstandingBytes;
    private long load;
    private long resolving;
    private long replayUntil;
    private boolean alone;
    private long attempted;
    private boolean pointWanted;
    private boolean pointTaken;
    private boolean leaving;
    private boolean pointHeld;
    private boolean crowded;
    private long sentBytes;
    private long takenBytes;
    private long durableBytes;
    private int steps;
    private long bytes;
    private int operations;

    /// @param turn whether an operation of this run may be tried alone now; the line is asked again when it
    ///     may
    EngineLine(RunSettings settings, BooleanSupplier turn) {
        this.settings = settings;
        this.turn = turn;
    }

    /// Begins again behind the recovery point; the engine holds nothing.
    ///
    /// @param failed whether the engine or its process has ended, which may have been an operation's doing.
    ///     That what was accepted is executed again is stored; if that has been stored already, it is
    ///     executed one at a time, and each attempt is stored
    void restart(TrainingRun run, boolean failed) {
        outstanding.clear();
        open = false;
        sent = run.recovery().position();
        outstandingBytes = 0;
        load = 0;
        resolving = 0;
        // Only what may have killed is begun once more in the journal.
        if (failed) {
            attempted = 0;
            replayUntil = run.accepted();
            alone = run.attempt().isPresent();
        }
        pointWanted = false;
        pointTaken = false;
        crowded = false;
        sentBytes = 0;
        takenBytes = 0;
        durableBytes = 0;
        steps = 0;
        bytes = 0;
        operations = 0;
    }

    /// The engine holds the run.
    void opened() {
        open = true;
    }

    /// Whether the engine works on the operation at `position`.
    boolean awaits(long position) {
        return outstanding.containsKey(position);
    }

    /// The engine has answered for `position`.
    void finished(long position) {
        Entry entry = outstanding.remove(position);
        if (entry != null) outstandingBytes -= entry.operation().bytes();
        if (load == position) load = 0;
    }

    /// Whether an operation is being tried alone.
    boolean tries() {
        return attempted != 0 && outstanding.containsKey(attempted);
    }

    /// Whether it was given operations behind `position` that are not finished.
    boolean aheadOf(long position) {
        return outstanding.tailMap(position, false).size() > 0;
    }

    /// Whether a save or a recovery point is being written.
    boolean writing() {
        return pointTaken || outstanding.values().stream().anyMatch(e -> saves(e.kind()));
    }

    boolean idle() {
        return outstanding.isEmpty() && !pointTaken && resolving == 0;
    }

    /// A recovery point is to be taken as soon as may be.
    void wantPoint() {
        pointWanted = true;
    }

    /// Nothing new is begun any more; what was done is made durable.
    void depart() {
        leaving = true;
    }

    /// Whether the engine's copy of the run may go without anything being executed again.
    boolean departed(TrainingRun run) {
        return idle() && (!open || sent == run.recovery().position());
    }

    /// The recovery point was stored.
    void pointDone() {
        pointTaken = false;
        durableBytes = takenBytes;
    }

    /// The recovery point failed; another is taken, but not before [#pointsAgain].
    void pointFailed() {
        pointTaken = false;
        pointHeld = true;
        pointWanted = true;
    }

    /// A recovery point may be tried again.
    void pointsAgain() {
        pointHeld = false;
    }

    /// Others want the run's room in the engine. Nothing more is sent until it has left; where its recovery
    /// point cannot be stored it stays, works, and tries later.
    void crowded() {
        crowded = open;
    }

    /// A load's checkpoint was found, or not.
    void resolved() {
        resolving = 0;
    }

    /// What comes next.
    ///
    /// @param holdWrites blobs are being deleted, so nothing that writes blobs may begin
    /// @param holdResults results that only memory holds have become too many
    Step next(TrainingRun run, boolean holdWrites, boolean holdResults) {
        if (run.closed()) return new Step.Rest();
        if (leaving) return idle() && !departed(run) && !holdWrites ? takePoint() : new Step.Rest();
        if (holdResults) pointWanted = true;
        if (pointDue(run) && !holdWrites) return takePoint();
        if (crowded && open && !pointHeld && load == 0 && run.attempt().isEmpty()) return leave(run);
        Optional<Entry> next = run.at(sent + 1);
        while (next.filter(Entry::settled).isPresent()) {
            sent++;
            next = run.at(sent + 1);
        }
        if (next.isEmpty()) return endOfLine(run);
        Entry entry = next.get();
        // A load in work decides whether what follows may run.
        if (load != 0) return new Step.Rest();
        Optional<Fault> struck = entry.kind() == OperationKind.LOAD_STATE
                ? Optional.empty() : run.struck(entry.position());
        if (struck.isPresent()) return new Step.Store(allStruck(run, entry.position(), struck.get()));
        if (entry.kind() == OperationKind.LOAD_STATE && !outstanding.isEmpty()) return new Step.Rest();
        if (entry.kind() == OperationKind.LOAD_STATE && entry.outcome() instanceof Outcome.Open)
            return resolve(entry);
        if (entry.position() > replayUntil && run.attempt().isPresent()) return endOfReplay();
        if (!open) return new Step.Open();
        if (full(entry) || holdWrites && saves(entry.kind())) return new Step.Rest();
        if (holdResults && sent > run.recovery().position() || tooFarAhead(run, entry))
            return new Step.Rest();
        if (entry.position() <= replayUntil && !alone && run.attempt().isEmpty())
            return new Step.Store(List.of(new ReplayBegan(entry.position())));
        if (entry.position() <= replayUntil && alone) {
            if (!outstanding.isEmpty()) return new Step.Rest();
            // Those before the stored attempt were executed after an earlier failure: they do not kill.
            boolean suspect = run.attempt().isEmpty() || entry.position() >= run.attempt().get().position();
            if (suspect && attempted != entry.position()) {
                int times = run.attempt().filter(a -> a.position() == entry.position())
                        .map(TrainingRun.Attempt::times).orElse(0);
                // Nothing is tried: whose turn it is stays as it is.
                if (times >= settings.attempts()) return new Step.Store(List.of(givenUp(entry, times)));
                if (!turn.getAsBoolean()) return new Step.Rest();
                attempted = entry.position();
                return new Step.Store(List.of(new OperationAttempted(entry.position())));
            }
        }
        return send(entry);
    }

    /// Leaves when all that it did is durable. A point is due before: see [#pointDue].
    private Step leave(TrainingRun run) {
        if (!outstanding.isEmpty() || pointTaken || unsaved(run)) return new Step.Rest();
        open = false;
        crowded = false;
        return new Step.Close();
    }

    /// Whether a recovery from the last point would execute something again.
    private boolean unsaved(TrainingRun run) {
        return run.line().stream().anyMatch(e -> e.position() <= sent && !e.settled());
    }

    /// Whether a recovery would have to execute more than it may; then a point is wanted, and waited for.
    private boolean tooFarAhead(TrainingRun run, Entry entry) {
        long ahead = sent - run.recovery().position();
        boolean far = ahead >= settings.pointMaxOperations() || ahead > 0
                && sentBytes - durableBytes + entry.operation().bytes() > settings.pointMaxBytes();
        if (far && !pointTaken && !pointWanted) pointWanted = true;
        return far;
    }

    private Step endOfLine(TrainingRun run) {
        return run.attempt().isPresent() ? endOfReplay() : new Step.Rest();
    }

    /// What was attempted alone lives: forget the attempt before anything else begins.
    private Step endOfReplay() {
        return outstanding.isEmpty() ? new Step.Store(List.of(new ReplayFinished(sent))) : new Step.Rest();
    }

    private Step resolve(Entry entry) {
        if (resolving == entry.position()) return new Step.Rest();
        resolving = entry.position();
        return new Step.Resolve(entry);
    }

    /// Everything that the failure takes with it, up to the next load.
    private static List<RunEvent> allStruck(TrainingRun run, long from, Fault why) {
        var failures = new ArrayList<RunEvent>();
        for (long at = from; run.at(at).isPresent(); at++) {
            Entry entry = run.at(at).get();
            if (entry.kind() == OperationKind.LOAD_STATE || run.struck(at).isEmpty()) break;
            if (!entry.settled()) failures.add(new OperationFailed(at, why));
        }
        return failures;
    }

    private static RunEvent givenUp(Entry entry, int times) {
        return new OperationFailed(entry.position(), Fault.server(WORKER_LOST, "the worker died " + times
                + " times while it executed this operation alone; it is not tried again. Split it if it is"
                + " large"));
    }

    private boolean full(Entry entry) {
        return outstanding.size() >= settings.window() || !outstanding.isEmpty()
                && outstandingBytes + entry.operation().bytes() > settings.windowBytes();
    }

    private Step send(Entry entry) {
        sent = entry.position();
        outstanding.put(sent, entry);
        outstandingBytes += entry.operation().bytes();
        operations++;
        bytes += entry.operation().bytes();
        sentBytes += entry.operation().bytes();
        if (entry.kind() == OperationKind.OPTIM_STEP) steps++;
        if (entry.kind() == OperationKind.LOAD_STATE) load = sent;
        Optional<CheckpointManifest> loaded = switch (entry.outcome()) {
            case Outcome.Resolved(var manifest) -> Optional.of(manifest);
            case Outcome.Applied(var manifest) -> Optional.of(manifest);
            case Outcome.Open _, Outcome.Committed _, Outcome.Failed _ -> Optional.empty();
        };
        return new Step.Send(entry, loaded);
    }

    private boolean pointDue(TrainingRun run) {
        boolean due = pointWanted || steps >= settings.pointSteps() || bytes >= settings.pointBytes()
                || operations >= settings.pointOperations()
                || crowded && outstanding.isEmpty() && run.attempt().isEmpty() && unsaved(run);
        return due && open && !pointTaken && !pointHeld && load == 0 && sent > run.recovery().position();
    }

    private Step takePoint() {
        pointWanted = false;
        pointTaken = true;
        takenBytes = sentBytes;
        steps = 0;
        bytes = 0;
        operations = 0;
        return new Step.TakePoint(sent);
    }

    static boolean saves(OperationKind kind) {
        return kind == OperationKind.SAVE_STATE || kind == OperationKind.SAVE_SAMPLER_WEIGHTS;
    }
}
