package bios.coordinator.run;

import bios.coordinator.run.Entry.Outcome;
import bios.coordinator.run.RunEvent.CheckpointCommitted;
import bios.coordinator.run.RunEvent.LoadApplied;
import bios.coordinator.run.RunEvent.OperationFailed;
import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunNote;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What follows from what the engine says of a run. Belongs to one actor.
final class EngineAnswers {
    private final RunContext context;
    private final Timings timings;
    private final EngineLine line;
    private final EngineCopy copy;
    private final Outcomes outcomes;
    private final RecoveryPoints points;
    private final Departure departure;

    EngineAnswers(RunContext context, Timings timings, EngineLine line, EngineCopy copy, Outcomes outcomes,
            RecoveryPoints points, Departure departure) {
        this.context = context;
        this.timings = timings;
        this.line = line;
        this.copy = copy;
        this.outcomes = outcomes;
        this.points = points;
        this.departure = departure;
    }

    /// What follows from an event of the engine's copy of now.
    Next on(TrainingRun run, EngineEvent event) {
        return switch (event) {
            case EngineEvent.Opened _ -> {
                copy.isOpen(run);
                yield new Next.Advance();
            }
            case EngineEvent.OpenFailed(_, var why) -> copy.refused(why)
                    ? new Next.Store(failures(run, why)) : new Next.Rest();
            case EngineEvent.Crowded _ -> {
                line.crowded();
                yield new Next.Advance();
            }
            case EngineEvent.Executed(_, var position, var result) -> executed(run, position, result);
            case EngineEvent.Measured(_, var position, var nanos) -> {
                timings.worked(position, nanos);
                yield new Next.Rest();
            }
            case EngineEvent.Failed(_, var position, var why) -> failed(run, position, why);
            case EngineEvent.RecoveryPointWritten written -> {
                points.written(written);
                yield new Next.KeepPoint();
            }
            case EngineEvent.RecoveryPointFailed(_, var position, var why) ->
                why.code().equals(EngineCommand.RUN_NOT_OPEN) ? lost(run)
                        : pointFailed("at " + position + ": " + why.message());
        };
    }

    private static List<RunEvent> failures(TrainingRun run, Fault why) {
        return run.line().stream().filter(entry -> !entry.settled())
                .<RunEvent>map(entry -> new OperationFailed(entry.position(), why)).toList();
    }

    private Next executed(TrainingRun run, long position, OperationResult result) {
        if (!line.awaits(position)) return new Next.Rest();
        copy.finished(position);
        Entry entry = run.at(position).orElseThrow();
        context.meter().executed(entry.kind(), position);
        return switch (result) {
            case OperationResult.Saved(var manifest) -> new Next.Store(
                    List.of(new CheckpointCommitted(position, manifest, session(run, entry, manifest))));
            case OperationResult.Loaded _ -> {
                line.wantPoint();
                outcomes.complete(Outcomes.success(entry, result));
                yield entry.outcome() instanceof Outcome.Applied
                        ? new Next.Go() : new Next.Store(List.of(new LoadApplied(position)));
            }
            case OperationResult.Stepped _, OperationResult.Evaluated _ -> {
                outcomes.complete(Outcomes.success(entry, result));
                yield new Next.Go();
            }
        };
    }

    /// Whose end is that of an ephemeral snapshot: the session that the save names, or the run's.
    private static Optional<String> session(TrainingRun run, Entry entry, CheckpointManifest manifest) {
        if (manifest.name().isPresent()) return Optional.empty();
        Optional<String> asked = entry.operation() instanceof StoredOperation.Inline(var kind, var encoded)
                && StoredOperations.decode(kind, encoded)
                        instanceof Operation.SaveSamplerWeights(_, _, var session)
                ? session : Optional.empty();
        return asked.or(() -> run.config().map(c -> c.session()));
    }

    private Next failed(TrainingRun run, long position, Fault why) {
        if (why.code().equals(EngineCommand.RUN_NOT_OPEN)) return lost(run);
        if (!line.awaits(position)) return new Next.Rest();
        Entry entry = run.at(position).orElseThrow();
        // What was accepted is there, and may have been executed before: it waits until it can be read.
        if (why.code().equals(EngineCommand.STORE_FAILED) && !EngineLine.saves(entry.kind())) {
            context.warn("operation {} waits: {}", position, why.message());
            return beginLater(run, false, "store_failed");
        }
        copy.finished(position);
        return new Next.StoreFailure(new OperationFailed(position, why), TrainingRun.poisons(entry, why));
    }

    /// The engine does not hold the run any more.
    Next lost(TrainingRun run) {
        context.warn("the engine lost it; it is opened again");
        context.note(RunNote.Kind.LEFT_ENGINE, Optional.empty(), Map.of("message", "the engine lost it"));
        return beginLater(run, true, "engine_lost");
    }

    private Next beginLater(TrainingRun run, boolean failed, String cause) {
        points.forget();
        copy.beginLater(run, failed, cause);
        return new Next.Rest();
    }

    private Next pointFailed(String why) {
        points.failed(why);
        departure.pointLost();
        return new Next.Go();
    }

    /// The results before a recovery point cannot be stored.
    Next pointLost(Internal.PointLost lost) {
        if (points.unkept(lost)) departure.pointLost();
        return new Next.Go();
    }
}
