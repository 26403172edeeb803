package bios.coordinator.run;

import bios.coordinator.run.RunEvent.RecoveryPointReached;
import bios.protocol.engine.EngineCommand.EngineEvent.RecoveryPointWritten;
import bios.protocol.run.RunNote;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// A recovery point between the engine, which has written the state, and the journal: it waits until all
/// before it is finished, then its results go into pages, then it is an event. Belongs to one actor.
final class RecoveryPoints {
    private final RunContext context;
    private final EngineLine line;
    private final EngineCopy copy;
    private final Outcomes outcomes;
    private Optional<RecoveryPointWritten> waiting = Optional.empty();
    private boolean keeping;

    RecoveryPoints(RunContext context, EngineLine line, EngineCopy copy, Outcomes outcomes) {
        this.context = context;
        this.line = line;
        this.copy = copy;
        this.outcomes = outcomes;
    }

    /// The engine has written one.
    void written(RecoveryPointWritten point) {
        waiting = Optional.of(point);
    }

    /// The engine's copy is another one: what waits is not of it.
    void forget() {
        waiting = Optional.empty();
    }

    /// Whether results are being written for one.
    boolean keeping() {
        return keeping;
    }

    /// Whether one is on its way to the journal.
    boolean underWay() {
        return keeping || waiting.isPresent();
    }

    /// Keeps the point that the engine has written as soon as all before it is finished.
    void keep(TrainingRun run) {
        if (waiting.isEmpty() || keeping) return;
        var reached = waiting.get();
        if (!outcomes.finished(run.recovery().position() + 1, reached.position())) return;
        waiting = Optional.empty();
        keeping = true;
        long epoch = copy.epoch();
        var pages = outcomes.pages(run, reached.position());
        context.later(() -> pages.write(context.world().blobs()),
                (written, failure) -> failure == null
                        ? new Internal.PointKept(epoch, reached, outcomes.kept(written))
                        : new Internal.PointLost(epoch, "its results cannot be stored: " + failure));
    }

    /// Its results are stored: the event that makes it the run's, if the engine's copy is still the one that
    /// wrote it. (Another may have written a point meanwhile, which has waited for this.)
    Next kept(Internal.PointKept kept) {
        keeping = false;
        if (kept.epoch() != copy.epoch()) return new Next.Go();
        line.pointDone();
        var reached = kept.point();
        return new Next.Store(List.of(new RecoveryPointReached(reached.position(), reached.state(),
                reached.step(), reached.lora(), Optional.empty(), kept.results())));
    }

    /// Its results cannot be stored.
    ///
    /// @return whether that matters: whether the engine's copy is still the one that wrote it
    boolean unkept(Internal.PointLost lost) {
        keeping = false;
        if (lost.epoch() != copy.epoch()) return false;
        failed(lost.why());
        return true;
    }

    /// It is lost, and another is tried after a while.
    void failed(String why) {
        context.warn("a recovery point is lost, the journal stays longer: {}", why);
        context.meter().pointFailed();
        context.note(RunNote.Kind.RECOVERY_POINT_FAILED, Optional.empty(), Map.of("message", why));
        line.pointFailed();
        context.after(context.settings().retryAfter(), "point", new Internal.PointsAgain());
    }
}
