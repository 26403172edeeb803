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
        timings = new Timings(nanos);
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
                    restarted(cause, operations, last);
            case Occurrence.Opened _ -> {
                resumed();
                opened(run);
            }
            case Occurrence.OpenFailed failed -> openFailed(failed);
            case Occurrence.EngineLost _ -> {
                context.warn("the engine has lost the run; it is opened again");
                record(HistoryEntry.Kind.LEFT_ENGINE, Map.of("message", "the engine lost it"));
            }
            case Occurrence.Evicted _ -> record(HistoryEntry.Kind.EVICTED, Map.of());
            case Occurrence.Draining _ -> record(HistoryEntry.Kind.DRAINING, Map.of());
            case Occurrence.Executed(var kind, var position) -> executed(kind, position);
            case Occurrence.Measured(var position, var worked) -> timings.worked(position, worked);
            case Occurrence.OperationWaits(var position, var why) ->
                    context.warn("operation {} cannot be read yet: {}", position, why);
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

    private void opened(TrainingRun run) {
        var entries = new ArrayList<HistoryEntry>();
        run.history().reversed().stream().filter(n -> n.kind() == HistoryEntry.Kind.OPENED)
                .flatMap(n -> n.node().stream()).findFirst().filter(before -> !before.equals(context.node()))
                .ifPresent(before -> {
                    Metrics.MOVED.labelValues(model).inc();
                    entries.add(entry(HistoryEntry.Kind.MOVED, Optional.empty(), Map.of("from", before)));
                });
        long point = run.recovery().position();
        entries.add(entry(HistoryEntry.Kind.OPENED, Optional.of(point).filter(at -> at > 0),
                Map.of("recovery_point", point == 0 ? "none" : "" + point, "replay", "" + replayed)));
        context.tell(new SelfMessage.RecordHistory(entries));
    }

    private void openFailed(Occurrence.OpenFailed failed) {
        Fault why = failed.why();
        if (!failed.repeated())
            context.warn("the engine did not open the run, code={}: {}", why.code(), why.message());
        if (!failed.retried()) return;
        waits(why);
        if (!failed.repeated()) record(HistoryEntry.Kind.WAITING,
                Map.of("code", why.code(), "message", why.message()));
    }

    private void recovered(long position) {
        double seconds = (now() - began) / NANOS;
        Metrics.RECOVERY_SECONDS.labelValues(model).observe(seconds);
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
    void started(int unfinishedOperations) {
        if (!active) Metrics.RUNS.labelValues(model).inc();
        active = true;
        count(unfinishedOperations - unfinished);
    }

    /// Counts the run as no longer in memory.
    void stopped() {
        if (active) Metrics.RUNS.labelValues(model).dec();
        active = false;
        count(-unfinished);
        resumed();
    }

    private void count(int more) {
        unfinished += more;
        Metrics.UNFINISHED.labelValues(model).inc(more);
    }

    void accepted(OperationKind kind) {
        Metrics.ACCEPTED.labelValues(model, label(kind)).inc();
        count(1);
    }

    private void executed(OperationKind kind, long position) {
        Metrics.EXECUTED.labelValues(model, label(kind)).inc();
        if (position <= until) Metrics.REPLAYED.labelValues(model, label(kind)).inc();
    }

    void failed(Fault why) {
        Metrics.FAILED.labelValues(model, why.code()).inc();
    }

    /// Records that the operation at `position` has an outcome.
    ///
    /// @param first whether it had none before
    void finished(long position, boolean first) {
        timings.finished(position);
        if (first) count(-1);
        if (replayed > 0 && position == until) recovered(position);
    }

    private void restarted(String cause, int operations, long last) {
        began = now();
        replayed = operations;
        until = last;
        if (operations > 0) Metrics.RECOVERIES.labelValues(model, cause).inc();
    }

    void passivated() {
        Metrics.PASSIVATED.labelValues(model).inc();
    }

    private void waits(Fault why) {
        Metrics.OPEN_FAILURES.labelValues(model, why.code()).inc();
        if (waiting.filter(why.code()::equals).isPresent()) return;
        resumed();
        waiting = Optional.of(why.code());
        Metrics.WAITING.labelValues(model, why.code()).inc();
    }

    private void resumed() {
        waiting.ifPresent(code -> Metrics.WAITING.labelValues(model, code).dec());
        waiting = Optional.empty();
    }

    void pointRequested() {
        pointBegan = now();
    }

    void pointStored(long bytes) {
        Metrics.RECOVERY_POINTS.labelValues(model).inc();
        Metrics.RECOVERY_POINT_BYTES.labelValues(model).inc(bytes);
        Metrics.RECOVERY_POINT_SECONDS.labelValues(model).observe((now() - pointBegan) / NANOS);
    }

    /// Records the duration of a journal write that started at `began`.
    void stored(long began) {
        Metrics.JOURNAL_SECONDS.labelValues("run").observe((now() - began) / NANOS);
    }

    /// Counts a failure of the journal.
    void journalFailed(String action) {
        Metrics.JOURNAL_FAILURES.labelValues("run", action).inc();
    }

    private static String label(OperationKind kind) {
        return kind.name().toLowerCase(Locale.ROOT);
    }
}
