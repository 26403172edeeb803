package bios.coordinator.run;

import bios.coordinator.run.PendingOperation.Outcome;
import bios.coordinator.run.RunEvent.*;
import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.HistoryEntry.Kind;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/// Derives the entries of a run's history from its events. Pure. An event of a build without histories gives
/// an entry if it has a time.
final class RunHistory {
    /// Routine entries may take up this part of a history.
    private static final int ROUTINE_PART = 4;
    private static final int MAX_NAMES = 8;

    private RunHistory() {}

    /// The history after `event`, at most `kept` entries. At most a quarter of them are recovery points, so
    /// that less frequent entries stay longer.
    static List<HistoryEntry> after(TrainingRun before, RunEvent event, int kept) {
        List<HistoryEntry> entries = before.history();
        return switch (event) {
            case OperationFailed e when isBlocked(before, e) -> countBlocked(entries);
            default -> entryOf(before, event).map(entry -> with(entries, entry, kept)).orElse(entries);
        };
    }

    /// The entries with a higher number than `after`.
    static List<HistoryEntry> newerThan(List<HistoryEntry> entries, long after) {
        return IntStream.range(0, entries.size()).filter(i -> number(entries, i) > after)
                .mapToObj(i -> entries.get(i).numbered(number(entries, i))).toList();
    }

    /// Entries of builds without numbers have their places as numbers; later ones go on from there.
    private static long number(List<HistoryEntry> entries, int index) {
        return entries.get(index).number().orElse(index + 1L);
    }

    /// What of the run's state was found to be not finite by a save or a recovery point, if no checkpoint has
    /// been saved or loaded since.
    static Optional<String> corrupted(List<HistoryEntry> history) {
        for (HistoryEntry entry : history.reversed()) {
            if (mends(entry)) return Optional.empty();
            boolean found = entry.kind() == Kind.STATE_NOT_FINITE || entry.kind() == Kind.OPERATION_FAILED
                    && Fault.STATE_NOT_FINITE.equals(entry.detail().get("code"));
            // What a recovery point has may be reported when a later operation is finished.
            if (found) return history.stream().noneMatch(e -> mends(e) && behind(e, entry))
                    ? Optional.ofNullable(entry.detail().get("message")) : Optional.empty();
        }
        return Optional.empty();
    }

    private static boolean mends(HistoryEntry entry) {
        return entry.kind() == Kind.CHECKPOINT_SAVED || entry.kind() == Kind.LOADED;
    }

    private static boolean behind(HistoryEntry later, HistoryEntry entry) {
        return later.position().orElse(0L) > entry.position().orElse(0L);
    }

    /// Whether `now` only repeats the newest entry of the history.
    static boolean repeatsNewest(List<HistoryEntry> history, HistoryEntry now) {
        if (history.isEmpty()) return false;
        HistoryEntry last = history.getLast();
        return now.repeats(last) || now.kind() == Kind.RECOVERY_POINT_FAILED
                && last.kind() == now.kind() && last.node().equals(now.node());
    }

    /// Whether nothing has happened in the run since it was passivated.
    static boolean passivated(List<HistoryEntry> history) {
        return !history.isEmpty() && history.getLast().kind() == Kind.PASSIVATED;
    }

    private static Optional<HistoryEntry> entryOf(TrainingRun run, RunEvent event) {
        return switch (event) {
            case RunCreated(var config, var stamp) -> Optional.of(new HistoryEntry(config.createdAtMillis(),
                    stamp.map(Stamp::node), Kind.CREATED, Optional.empty(), Optional.empty(),
                    config.parent().map(parent -> Map.of("base_model", config.baseModel().value(),
                            "rank", "" + config.lora().rank(), "parent", parent))
                            .orElse(Map.of("base_model", config.baseModel().value(),
                                    "rank", "" + config.lora().rank()))));
            case OperationFailed(var at, var why, var stamp, _, _) -> stamp.map(s -> operationEntry(run, at,
                    s, why.code().equals(ReplayPolicy.WORKER_LOST)
                            ? Kind.POISONED_OPERATION : Kind.OPERATION_FAILED,
                    Map.of("code", why.code(), "message", why.message())));
            case WorkerDied(var report, var stamp) -> stamp.filter(_ -> report.position() > 0).map(s ->
                    operationEntry(run, report.position(), s, Kind.WORKER_DIED, Map.of("cause",
                            report.cause(), "alone", "" + report.alone())));
            case OperationSetAside(var at, var why, var stamp) -> stamp.map(s -> operationEntry(run, at, s,
                    Kind.SET_ASIDE, Map.of("code", why.code(), "message", why.message())));
            case OperationRetried(var at, var stamp) -> stamp.map(s ->
                    operationEntry(run, at, s, Kind.RETRIED, Map.of()));
            case LoadApplied(var at, var stamp) -> stamp.filter(_ -> run.at(at).isPresent())
                    .map(s -> operationEntry(run, at, s, Kind.LOADED, loadDetail(run.at(at).orElseThrow())));
            case CheckpointCommitted(var at, var manifest, _, var stamp) -> manifest.name().map(name ->
                    operationEntry(run, at, stamp.orElse(new Stamp(manifest.createdAtMillis(), "")),
                            Kind.CHECKPOINT_SAVED, Map.of("checkpoint", checkpointText(manifest.kind(), name),
                                    "step", "" + manifest.step(), "bytes", "" + manifest.bytes())));
            case CheckpointDeleted(var kind, var name, var stamp, _) -> stamp.map(s ->
                    runEntry(s, Kind.CHECKPOINT_DELETED, Map.of("checkpoint", checkpointText(kind, name))));
            case ExpirySet(var kind, var name, var at, var stamp) -> stamp.map(s ->
                    runEntry(s, Kind.EXPIRY_SET, Map.of("checkpoint", checkpointText(kind, name),
                            "expires_at", at.map(millis -> "" + millis).orElse("never"))));
            case PublicationSet(var kind, var name, var published, var stamp) -> stamp.map(s -> runEntry(s,
                    published ? Kind.CHECKPOINT_PUBLISHED : Kind.CHECKPOINT_UNPUBLISHED,
                    Map.of("checkpoint", checkpointText(kind, name))));
            case CheckpointsExpired(var time, var stamp, _) ->
                    expiryEntry(run, time, stamp.orElse(new Stamp(time, "")));
            case RecoveryPointReached e -> e.stamp().map(s -> operationEntry(run, e.position(), s,
                    Kind.RECOVERY_POINT, Map.of("step", "" + e.step(), "bytes", "" + e.state().bytes())));
            case RunClosed(var time, var stamp) -> Optional.of(
                    runEntry(stamp.orElse(new Stamp(time, "")), Kind.UNLOADED, Map.of()));
            case HistoryRecorded(var entry) -> Optional.of(entry);
            case OperationAccepted _, LoadResolved _, ErrorSeen _, SnapshotsReleased _, OperationAttempted _,
                    ReplayBegan _, ReplayFinished _, BlobsAbandoned _, WeightsReleased _,
                    BlobsFreed _, EntityBegan _, ProjectSet _, UsageCounted _ -> Optional.empty();
        };
    }

    private static HistoryEntry runEntry(Stamp stamp, Kind kind, Map<String, String> detail) {
        return new HistoryEntry(stamp.timeMillis(), node(stamp), kind, Optional.empty(), Optional.empty(),
                detail);
    }

    private static HistoryEntry operationEntry(TrainingRun run, long position, Stamp stamp, Kind kind,
            Map<String, String> detail) {
        return new HistoryEntry(stamp.timeMillis(), node(stamp), kind, Optional.of(position),
                run.at(position).map(PendingOperation::seq), detail);
    }

    private static Optional<String> node(Stamp stamp) {
        return Optional.of(stamp.node()).filter(name -> !name.isEmpty());
    }

    private static String checkpointText(CheckpointKind kind, CheckpointName name) {
        return kind.segment() + "/" + name;
    }

    private static Map<String, String> loadDetail(PendingOperation load) {
        Optional<CheckpointManifest> manifest = switch (load.outcome()) {
            case Outcome.Resolved(var found) -> Optional.of(found);
            case Outcome.Applied(var found) -> Optional.of(found);
            case Outcome.Open _, Outcome.Committed _, Outcome.Failed _, Outcome.Dropped _ -> Optional.empty();
        };
        return manifest.flatMap(CheckpointManifest::path)
                .map(path -> Map.of("path", path.biosUri())).orElse(Map.of());
    }

    private static Optional<HistoryEntry> expiryEntry(TrainingRun run, long time, Stamp stamp) {
        List<String> expired = run.checkpoints().versions().stream()
                .filter(m -> m.expiresAtMillis().filter(at -> at <= time).isPresent())
                .map(m -> checkpointText(m.kind(), m.name().orElseThrow())).distinct().toList();
        return expired.isEmpty() ? Optional.empty()
                : Optional.of(runEntry(stamp, Kind.CHECKPOINT_EXPIRED, Map.of(
                "checkpoints", expired.stream().limit(MAX_NAMES).collect(Collectors.joining(", "))
                + (expired.size() > MAX_NAMES ? " and " + (expired.size() - MAX_NAMES) + " more" : ""))));
    }

    /// Whether an operation fails only because of an earlier failure.
    private static boolean isBlocked(TrainingRun run, OperationFailed event) {
        return run.blockedBy(event.position()).filter(event.why()::equals).isPresent();
    }

    /// Counts an operation that an earlier failure blocks in the entry of that failure.
    private static List<HistoryEntry> countBlocked(List<HistoryEntry> entries) {
        for (int i = entries.size() - 1; i >= 0; i--) {
            HistoryEntry entry = entries.get(i);
            if (entry.kind() != Kind.OPERATION_FAILED && entry.kind() != Kind.POISONED_OPERATION) continue;
            return withReplaced(entries, i, withCount(entry, "struck", 1));
        }
        return entries;
    }

    private static HistoryEntry withCount(HistoryEntry entry, String name, int more) {
        var detail = new HashMap<>(entry.detail());
        detail.merge(name, "" + more, (old, add) -> "" + (Long.parseLong(old) + Long.parseLong(add)));
        return new HistoryEntry(entry.timeMillis(), entry.node(), entry.kind(), entry.position(), entry.seq(),
                detail, entry.number());
    }

    private static List<HistoryEntry> withReplaced(
            List<HistoryEntry> entries, int index, HistoryEntry entry) {
        var changed = new ArrayList<>(entries);
        changed.set(index, entry);
        return changed;
    }

    private static List<HistoryEntry> with(List<HistoryEntry> entries, HistoryEntry entry, int kept) {
        var longer = new ArrayList<>(entries);
        longer.add(entry.numbered(entries.isEmpty() ? 1 : number(entries, entries.size() - 1) + 1));
        long routine = longer.stream().filter(RunHistory::isRoutine).count();
        for (int i = 0; i < longer.size() && routine > Math.max(1, kept / ROUTINE_PART);) {
            if (isRoutine(longer.get(i))) {
                longer.remove(i);
                routine--;
            } else i++;
        }
        return longer.size() <= kept ? longer : longer.subList(longer.size() - kept, longer.size());
    }

    private static boolean isRoutine(HistoryEntry entry) {
        return entry.kind() == Kind.RECOVERY_POINT;
    }
}
