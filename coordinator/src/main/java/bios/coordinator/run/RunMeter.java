package bios.coordinator.run;

import bios.coordinator.Metrics;
import bios.protocol.Fault;
import bios.protocol.run.OperationKind;
import java.util.Locale;
import java.util.Optional;
import java.util.function.LongSupplier;

/// What a run's entity tells [Metrics], and how far a recovery has come. Belongs to one actor.
final class RunMeter {
    private static final double NANOS = 1e9;

    private final String model;
    private final LongSupplier nanos;
    private int unfinished;
    private boolean active;
    private Optional<String> waiting = Optional.empty();
    private long pointBegan;
    private long began;
    private long until;
    private int again;

    /// A recovery that has come to its end.
    record Recovered(double seconds, int operations) {}

    /// @param model the slug of the base model
    /// @param nanos a clock that only goes forward
    RunMeter(String model, LongSupplier nanos) {
        this.model = model;
        this.nanos = nanos;
    }

    long now() {
        return nanos.getAsLong();
    }

    /// The run is in memory.
    ///
    /// @param open operations accepted and not finished
    void begins(int open) {
        if (!active) Metrics.RUNS.labelValues(model).inc();
        active = true;
        count(open - unfinished);
    }

    /// The run leaves memory.
    void ends() {
        if (active) Metrics.RUNS.labelValues(model).dec();
        active = false;
        count(-unfinished);
        goes();
    }

    private void count(int more) {
        unfinished += more;
        Metrics.UNFINISHED.labelValues(model).inc(more);
    }

    void accepted(OperationKind kind) {
        Metrics.ACCEPTED.labelValues(model, word(kind)).inc();
        count(1);
    }

    void executed(OperationKind kind, long position) {
        Metrics.EXECUTED.labelValues(model, word(kind)).inc();
        if (position <= until) Metrics.REPLAYED.labelValues(model, word(kind)).inc();
    }

    void failed(Fault why) {
        Metrics.FAILED.labelValues(model, why.code()).inc();
    }

    void finished() {
        count(-1);
    }

    /// The engine lost what it had done of the run, or this is the run's beginning on this node.
    ///
    /// @param operations to be executed again
    /// @param last position of the last of them
    void restarted(String cause, int operations, long last) {
        began = now();
        again = operations;
        until = last;
        if (operations > 0) Metrics.RECOVERIES.labelValues(model, cause).inc();
    }

    /// Operations that are executed again since the last loss.
    int again() {
        return again;
    }

    /// The operation at `position` has an outcome; what it ends, if it is the last of a replay.
    Optional<Recovered> reached(long position) {
        if (again == 0 || position != until) return Optional.empty();
        var recovered = new Recovered((now() - began) / NANOS, again);
        again = 0;
        Metrics.RECOVERY_SECONDS.labelValues(model).observe(recovered.seconds());
        return Optional.of(recovered);
    }

    void moved() {
        Metrics.MOVED.labelValues(model).inc();
    }

    void passivated() {
        Metrics.PASSIVATED.labelValues(model).inc();
    }

    /// The run cannot go on.
    void waits(Fault why) {
        Metrics.OPEN_FAILURES.labelValues(model, why.code()).inc();
        if (waiting.filter(why.code()::equals).isPresent()) return;
        goes();
        waiting = Optional.of(why.code());
        Metrics.WAITING.labelValues(model, why.code()).inc();
    }

    /// It can.
    void goes() {
        waiting.ifPresent(code -> Metrics.WAITING.labelValues(model, code).dec());
        waiting = Optional.empty();
    }

    void pointOrdered() {
        pointBegan = now();
    }

    void pointStored(long bytes) {
        Metrics.RECOVERY_POINTS.labelValues(model).inc();
        Metrics.RECOVERY_POINT_BYTES.labelValues(model).inc(bytes);
        Metrics.RECOVERY_POINT_SECONDS.labelValues(model).observe((now() - pointBegan) / NANOS);
    }

    void pointFailed() {
        Metrics.RECOVERY_POINT_FAILURES.labelValues(model).inc();
    }

    /// The journal holds what was given to it at `began`.
    void stored(long began) {
        Metrics.JOURNAL_SECONDS.labelValues("run").observe((now() - began) / NANOS);
    }

    /// The journal refused to.
    void refused(String action) {
        Metrics.JOURNAL_FAILURES.labelValues("run", action).inc();
    }

    private static String word(OperationKind kind) {
        return kind.name().toLowerCase(Locale.ROOT);
    }
}
