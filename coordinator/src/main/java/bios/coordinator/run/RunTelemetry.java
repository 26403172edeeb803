package bios.coordinator.run;

import bios.coordinator.Metrics;
import bios.coordinator.run.RunEffect.Occurrence;
import bios.protocol.Fault;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.OperationKind;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.function.LongSupplier;

/// Records metrics, log lines, history entries and timings of a run's operations. Makes no decisions. Belongs
/// to one actor.
final class RunTelemetry {
    private static final double NANOS = 1e9;

    private final RunContext context;
    private final String model;
    private final LongSupplier nanos;
    private final Timings timings;
    private int unfinished;
    private boolean active;
    private Optional<String> waiting = Optional.empty();
    private long pointBegan;
    private long began;
    private long until;
    private int replayed;

    RunTelemetry(RunContext context) {
        this.context = context;
        model = context.id().slug();
        nanos = context.environment().nanos();
        timings = new Timings(nanos, context::now);
    }

    Timings timings() {
        return timings;
    }

    long now() {
        return nanos.getAsLong();
    }

    /// Records an occurrence that the scheduler reports.
    void report(TrainingRun run, Occurrence occurrence) {
        switch (occurrence) {
            case Occurrence.SessionStarted(var cause, var operations, var last) ->
                    beginRecovery(cause, operations, last);
            case Occurrence.Opened _ -> {
                endWaiting();
                recordOpened(run);
            }
            case Occurrence.OpenFailed failed -> recordOpenFailed(failed);
            case Occurrence.EngineLost _ -> {
                context.warn("the engine has lost the run; it is opened again");
                record(HistoryEntry.Kind.LEFT_ENGINE, Map.of("message", "the engine lost it"));
            }
            case Occurrence.Evicted _ -> record(HistoryEntry.Kind.EVICTED, Map.of());
            case Occurrence.Draining _ -> record(HistoryEntry.Kind.DRAINING, Map.of());
            case Occurrence.Executed(var kind, var position) -> countExecuted(kind, position);
            case Occurrence.Measured(var position, var worked) -> timings.recordDeviceTime(position, worked);
            case Occurrence.OperationWaits(var position, var why) -> recordOperationWaits(position, why);
            case Occurrence.StateNotFinite(var position, var why) -> {
                if (RunHistory.corrupted(run.history()).isPresent()) return;
                context.warn("the state is not finite, code={}: {}", why.code(), why.message());
                context.tell(new SelfMessage.RecordHistory(List.of(
                        entry(HistoryEntry.Kind.STATE_NOT_FINITE, Optional.of(position),
                                Map.of("code", why.code(), "message", why.message())))));
            }
            case Occurrence.RecoveryPointFailed(var why) -> {
                context.warn("a recovery point failed; it is tried again: {}", why);
                Metrics.RECOVERY_POINT_FAILURES.labelValues(model).inc();
                record(HistoryEntry.Kind.RECOVERY_POINT_FAILED, Map.of("message", why));
            }
            case Occurrence.DeletionFailed(var why) ->
                    context.warn("blobs cannot be deleted yet: {}", why);
        }
    }

    // History

    /// An entry with the current time and this node.
    HistoryEntry entry(HistoryEntry.Kind kind, Optional<Long> position, Map<String, String> detail) {
        return new HistoryEntry(context.now(), Optional.of(context.node()), kind, position, Optional.empty(),
                detail);
    }

    private void record(HistoryEntry.Kind kind, Map<String, String> detail) {
        context.tell(new SelfMessage.RecordHistory(List.of(entry(kind, Optional.empty(), detail))));
    }

    private void recordOpened(TrainingRun run) {
        var entries = new ArrayList<HistoryEntry>();
        run.history().reversed().stream().filter(n -> n.kind() == HistoryEntry.Kind.OPENED)
                .flatMap(n -> n.node().stream()).findFirst().filter(before -> !before.equals(context.node()))
                .ifPresent(before -> {
                    Metrics.RUNS_MOVED.labelValues(model).inc();
                    entries.add(entry(HistoryEntry.Kind.MOVED, Optional.empty(), Map.of("from", before)));
                });
        long point = run.recovery().position();
        entries.add(entry(HistoryEntry.Kind.OPENED, Optional.of(point).filter(at -> at > 0),
                Map.of("recovery_point", point == 0 ? "none" : "" + point, "replay", "" + replayed)));
        context.tell(new SelfMessage.RecordHistory(entries));
    }

    private void recordOpenFailed(Occurrence.OpenFailed failed) {
        Fault why = failed.why();
        if (!failed.repeated())
            context.warn("the engine did not open the run, code={}: {}", why.code(), why.message());
        beginWaiting(why);
        if (!failed.repeated()) record(HistoryEntry.Kind.WAITING,
                Map.of("code", why.code(), "message", why.message()));
    }

    private void recordOperationWaits(long position, Fault why) {
        context.warn("operation {} cannot be executed now and is tried again, code={}: {}", position,
                why.code(), why.message());
        record(HistoryEntry.Kind.WAITING, Map.of("code", why.code(), "message", why.message()));
    }

    private void recordRecovered(long position) {
        double seconds = (now() - began) / NANOS;
        Metrics.RUN_RECOVERY_SECONDS.labelValues(model).observe(seconds);
        context.tell(new SelfMessage.RecordHistory(List.of(entry(HistoryEntry.Kind.RECOVERED,
                Optional.of(position), Map.of("seconds", String.format(Locale.ROOT, "%.3f", seconds),
                        "operations", "" + replayed)))));
        context.actor().getLog().atInfo().addKeyValue("run", context.id()).addKeyValue("position", position)
                .log("recovered in {} s, {} operations replayed", seconds, replayed);
        replayed = 0;
    }

    // Metrics

    /// Counts the run as in memory.
    ///
    /// @param unfinishedOperations number of operations accepted and not finished
    void countActive(int unfinishedOperations) {
        if (!active) Metrics.RUNS_ACTIVE.labelValues(model).inc();
        active = true;
        count(unfinishedOperations - unfinished);
    }

    /// Counts the run as no longer in memory.
    void countInactive() {
        if (active) Metrics.RUNS_ACTIVE.labelValues(model).dec();
        active = false;
        count(-unfinished);
        endWaiting();
    }

    private void count(int more) {
        unfinished += more;
        Metrics.OPERATIONS_UNFINISHED.labelValues(model).inc(more);
    }

    void countAccepted(OperationKind kind) {
        Metrics.OPERATIONS_ACCEPTED.labelValues(model, label(kind)).inc();
        count(1);
    }

    private void countExecuted(OperationKind kind, long position) {
        Metrics.OPERATIONS_EXECUTED.labelValues(model, label(kind)).inc();
        if (position <= until) Metrics.OPERATIONS_REPLAYED.labelValues(model, label(kind)).inc();
    }

    void countFailed(Fault why) {
        Metrics.OPERATIONS_FAILED.labelValues(model, why.code()).inc();
    }

    /// Records that the operation at `position` has an outcome.
    ///
    /// @param first whether it had none before
    void recordOutcome(long position, boolean first) {
        timings.recordOutcome(position);
        if (first) count(-1);
        if (replayed > 0 && position == until) recordRecovered(position);
    }

    private void beginRecovery(String cause, int operations, long last) {
        began = now();
        replayed = operations;
        until = last;
        if (operations > 0) Metrics.RUN_RECOVERIES.labelValues(model, cause).inc();
    }

    void countReleased(int weights) {
        Metrics.WEIGHTS_RELEASED.labelValues(model).inc(weights);
    }

    void countAbandoned(int blobs) {
        Metrics.BLOBS_ABANDONED.labelValues(model).inc(blobs);
    }

    void countPassivated() {
        Metrics.RUNS_PASSIVATED.labelValues(model).inc();
    }

    private void beginWaiting(Fault why) {
        Metrics.RUN_OPEN_FAILURES.labelValues(model, why.code()).inc();
        if (waiting.filter(why.code()::equals).isPresent()) return;
        endWaiting();
        waiting = Optional.of(why.code());
        Metrics.RUNS_WAITING.labelValues(model, why.code()).inc();
    }

    private void endWaiting() {
        waiting.ifPresent(code -> Metrics.RUNS_WAITING.labelValues(model, code).dec());
        waiting = Optional.empty();
    }

    void beginRecoveryPoint() {
        pointBegan = now();
    }

    void endRecoveryPoint(long bytes) {
        Metrics.RECOVERY_POINTS.labelValues(model).inc();
        Metrics.RECOVERY_POINT_BYTES.labelValues(model).inc(bytes);
        Metrics.RECOVERY_POINT_SECONDS.labelValues(model).observe((now() - pointBegan) / NANOS);
    }

    /// Records the duration of a journal write that started at `began`.
    void recordJournalWrite(long began) {
        Metrics.JOURNAL_WRITE_SECONDS.labelValues("run").observe((now() - began) / NANOS);
    }

    /// Counts a failure of the journal.
    void countJournalFailure(String action) {
        Metrics.JOURNAL_FAILURES.labelValues("run", action).inc();
    }

    private static String label(OperationKind kind) {
        return kind.name().toLowerCase(Locale.ROOT);
    }
}
