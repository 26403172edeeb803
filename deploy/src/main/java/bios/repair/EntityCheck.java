package bios.repair;

import bios.coordinator.run.RunInspection;
import bios.coordinator.session.SessionInspection;
import bios.persistence.journal.JournalLoss;
import bios.persistence.journal.StoredRows;
import bios.protocol.checkpoint.BlobId;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Predicate;

/// What a check finds out about an entity of the journal: what is wrong, and its newest state that can be
/// verified.
///
/// @param acknowledged its newest event, as far as it is known
/// @param problems a sentence for each; empty: all is well
/// @param good the newest event up to which snapshot, events and the blobs they need can be verified; 0: none
/// @param snapshots the numbers of the snapshots that can be read, up to `good`
/// @param operations accepted operations up to `good`, of a run
public record EntityCheck(String persistenceId, long acknowledged, List<String> problems, long good,
        List<Long> snapshots, Optional<Long> operations) {
    /// How many damaged blobs of checkpoints and results are named.
    private static final int MAX_NAMED = 5;

    public EntityCheck {
        problems = List.copyOf(problems);
        snapshots = List.copyOf(snapshots);
    }

    /// The entity as messages name it.
    public String name() {
        return JournalLoss.name(persistenceId);
    }

    /// Whether it is a run.
    public boolean run() {
        return JournalLoss.run(persistenceId).isPresent();
    }

    /// Whether nothing is lost that `bios restore` would have to give up.
    public boolean whole() {
        return good >= acknowledged;
    }

    /// What the entity would lose, in words.
    public String loses() {
        if (whole()) return problems.isEmpty() ? "nothing" : "nothing of its journal";
        if (good == 0) return "everything: nothing of its journal can be verified";
        return "events " + (good + 1) + " to " + acknowledged
                + operations.map(count -> "; " + count + " accepted operations are left").orElse("");
    }

    /// Checks the rows of an entity.
    ///
    /// @param acknowledged its newest event, as far as it is known
    /// @param proven the newest event that the names of its blobs prove
    /// @param blob whether a blob is there and whole
    public static EntityCheck of(StoredRows rows, long acknowledged, long proven, Predicate<BlobId> blob) {
        List<String> problems = new ArrayList<>(rows.problems(acknowledged));
        if (JournalLoss.run(rows.persistenceId()).isPresent())
            return ofRun(rows, acknowledged, proven, blob, problems);
        if (rows.persistenceId().startsWith("session|"))
            for (StoredRows.Row row : rows.events()) if (row.intact())
                read(() -> SessionInspection.read(row.manifest(), row.bytes()))
                        .ifPresent(why -> problems.add("event " + row.number() + " cannot be read: " + why));
        return ofOther(rows, acknowledged, problems);
    }

    private static EntityCheck ofOther(StoredRows rows, long acknowledged, List<String> problems) {
        List<Long> intact = rows.snapshots().stream().filter(StoredRows.Row::intact)
                .map(StoredRows.Row::number).toList();
        long base = intact.isEmpty() ? 0 : intact.getFirst();
        if (rows.replaced() && base < rows.deletedTo())
            return new EntityCheck(rows.persistenceId(), acknowledged, problems, 0, List.of(),
                    Optional.empty());
        long good = Math.max(base, rows.deletedTo());
        for (StoredRows.Row row : rows.events())
            if (row.number() == good + 1 && row.intact()) good = row.number();
        return new EntityCheck(rows.persistenceId(), acknowledged, problems, good, intact, Optional.empty());
    }

    private static EntityCheck ofRun(StoredRows rows, long known, long proven, Predicate<BlobId> blob,
            List<String> problems) {
        Found best = new Found(0, RunInspection.NONE);
        List<Long> readable = new ArrayList<>();
        if (!rows.replaced()) best = follow(rows, new Found(rows.deletedTo(), RunInspection.NONE), blob);
        for (StoredRows.Row row : rows.snapshots()) {
            if (!row.intact()) continue;
            try {
                var found = follow(rows,
                        new Found(row.number(), RunInspection.ofSnapshot(row.manifest(), row.bytes())), blob);
                readable.add(row.number());
                if (found.number() > best.number()) best = found;
            } catch (RuntimeException unreadable) {
                problems.add("the snapshot at event " + row.number() + " cannot be read: "
                        + unreadable.getMessage());
            }
        }
        long good = best.number();
        boolean lacks = best.run().lacks(proven, Math.max(known, good));
        if (lacks) problems.add("a blob was written when the journal had event " + proven + "; it has events"
                + " up to " + good);
        long acknowledged = lacks ? proven : known;
        if (good < acknowledged && problems.isEmpty())
            problems.add("after event " + good + " it cannot go on: " + reason(rows, best, blob));
        Set<BlobId> others = best.run().others();
        List<BlobId> bad = others.stream().filter(blob.negate()).toList();
        for (BlobId id : bad.stream().limit(MAX_NAMED).toList())
            problems.add("blob " + id + " (a checkpoint or results) is missing or damaged");
        if (bad.size() > MAX_NAMED) problems.add((bad.size() - MAX_NAMED) + " more blobs are missing");
        return new EntityCheck(rows.persistenceId(), acknowledged, problems, good,
                readable.stream().filter(number -> number <= good).toList(),
                Optional.of(best.run().accepted()));
    }

    /// A state of a run.
    ///
    /// @param number of its last event
    private record Found(long number, RunInspection run) {}

    /// The newest state with all the blobs that it needs, from `base` on; 0 if there is none.
    private static Found follow(StoredRows rows, Found base, Predicate<BlobId> blob) {
        List<Found> states = new ArrayList<>(List.of(base));
        Found last = base;
        for (StoredRows.Row row : rows.events()) {
            if (row.number() <= last.number()) continue;
            Optional<Found> next = row.number() == last.number() + 1 && row.intact()
                    ? next(last, row) : Optional.empty();
            if (next.isEmpty()) break;
            last = next.get();
            states.add(last);
        }
        for (Found state : states.reversed())
            if (state.run().created() && state.run().needed().stream().allMatch(blob)) return state;
        return new Found(0, RunInspection.NONE);
    }

    private static Optional<Found> next(Found last, StoredRows.Row row) {
        try {
            return Optional.of(new Found(row.number(), last.run().after(row.manifest(), row.bytes())));
        } catch (RuntimeException _) {
            return Optional.empty();
        }
    }

    private static String reason(StoredRows rows, Found best, Predicate<BlobId> blob) {
        for (StoredRows.Row row : rows.events())
            if (row.number() == best.number() + 1) {
                Optional<String> unreadable = read(() -> best.run().after(row.manifest(), row.bytes()));
                if (unreadable.isPresent()) return unreadable.get();
                return best.run().after(row.manifest(), row.bytes()).needed().stream().filter(blob.negate())
                        .map(id -> "blob " + id + " is missing or damaged").findFirst().orElse("unknown");
            }
        return "a blob that it needs is missing or damaged";
    }

    private static Optional<String> read(Runnable reading) {
        try {
            reading.run();
            return Optional.empty();
        } catch (RuntimeException unreadable) {
            return Optional.of(String.valueOf(unreadable.getMessage()));
        }
    }
}
