package bios.repair;

import bios.CommandFailed;
import bios.coordinator.run.RunInspection;
import bios.persistence.embedded.AcknowledgedLog;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JournalCheck;
import bios.persistence.journal.JournalLoss;
import bios.persistence.journal.JournalLoss.Loss;
import bios.persistence.journal.OfflineJournal;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.sql.SQLException;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// Repairs the embedded journal of a data folder that no process serves. What it removes stays in a copy of
/// the whole journal beside it.
public final class DataRepair {
    private final Path data;
    private final boolean files;
    private final InstantSource clock;
    private final Consumer<String> output;

    /// @param files whether the blobs are files in the folder
    /// @param output told of each step
    public DataRepair(Path data, boolean files, InstantSource clock, Consumer<String> output) {
        this.data = data;
        this.files = files;
        this.clock = clock;
        this.output = output;
    }

    /// Goes on with what the journal has: records in the history of each run what was given up, and takes the
    /// journal as the newest acknowledged state. Nothing else is changed.
    ///
    /// @return what was given up
    public List<Loss> acceptLoss() {
        Path folder = OfflineJournal.folder(data);
        if (!EmbeddedDatabase.exists(folder) && !Files.exists(AcknowledgedLog.file(folder))
                && OfflineJournal.runsWithBlobs(data).isEmpty()) return List.of();
        if (!readable(folder)) openOrClear(folder);
        Optional<List<Loss>> losses = accept();
        if (losses.isPresent()) return losses.get();
        Path copy = copy(folder);
        rebuild(folder, copy);
        return accept().orElseGet(() -> {
            clear(folder, copy);
            return List.of();
        });
    }

    /// @return what was given up; empty if the file is too damaged to be changed
    private Optional<List<Loss>> accept() {
        List<Loss> losses;
        try (OfflineJournal journal = OfflineJournal.change(data)) {
            Map<String, Long> heads = new HashMap<>(journal.heads());
            losses = new ArrayList<>(journal.losses(heads));
            if (files) losses.addAll(provenLosses(journal, heads, losses));
            journal.begin();
            for (Loss loss : losses) {
                output.accept("given up: " + loss);
                if (loss.have() > 0 && loss.run()) heads.put(loss.persistenceId(), record(journal,
                        loss.persistenceId(), loss.have(), Map.of("by", "accept-loss", "have",
                                "" + loss.have(), "acknowledged", "" + loss.acknowledged())));
            }
            for (String id : List.copyOf(heads.keySet())) if (JournalLoss.name(id).equals(id))
                putDamaged(journal, id, heads);
            journal.commit();
            journal.acknowledge(heads);
            tellUnknown(losses.stream().filter(loss -> loss.run() && loss.have() == 0)
                    .map(Loss::persistenceId).toList(), heads);
        } catch (SQLException failed) {
            output.accept("the journal is damaged: " + failed.getMessage().lines().findFirst().orElse(""));
            return Optional.empty();
        }
        return starts() ? Optional.of(losses) : Optional.empty();
    }

    /// Whether a server can start with the journal.
    private boolean starts() {
        try {
            JournalCheck.open(data);
            return true;
        } catch (JournalLoss _) {
            return false;
        }
    }

    /// The losses that only the names of blobs prove.
    ///
    /// @param known other losses
    private List<Loss> provenLosses(OfflineJournal journal, Map<String, Long> heads, List<Loss> known) {
        Set<String> named = known.stream().map(Loss::persistenceId).collect(Collectors.toSet());
        List<Loss> losses = new ArrayList<>();
        try (var blobs = DataCheck.Blobs.open(data)) {
            heads.forEach((id, head) -> {
                long proven = named.contains(id) ? 0 : blobs.newestEvent(id);
                if (proven <= head) return;
                var check = EntityCheck.of(journal.rows(id), head, proven, _ -> true);
                if (check.acknowledged() > head) losses.add(new Loss(id, head, check.acknowledged()));
            });
        }
        return losses;
    }

    /// Opens a file that the database cannot open, or takes it away, with all that it knows.
    private void openOrClear(Path folder) {
        Path copy = copy(folder);
        if (!reopen(folder, copy)) clear(folder, copy);
    }

    private void clear(Path folder, Path copy) {
        try {
            DataCheck.of(data, files).entities().forEach(entity ->
                    output.accept("given up: " + entity.name() + ": " + entity.loses()));
            OfflineJournal.clear(data);
            AcknowledgedLog.replace(folder, Map.of());
            output.accept("nothing of the journal can be read; started with an empty one");
        } catch (IOException failed) {
            throw failure(folder, failed, copy);
        }
    }

    /// Puts back an entity of cluster sharding, without which no run starts.
    private void putDamaged(OfflineJournal journal, String id, Map<String, Long> heads) throws SQLException {
        var check = EntityCheck.of(journal.rows(id), heads.get(id), 0, _ -> true);
        if (check.problems().isEmpty()) return;
        output.accept("given up: " + check.name() + ": " + check.loses());
        journal.cut(id, check.good(), check.snapshots());
        if (check.good() == 0) heads.remove(id);
        else heads.put(id, check.good());
    }

    private long record(OfflineJournal journal, String persistenceId, long after, Map<String, String> detail)
            throws SQLException {
        var event = RunInspection.dataLost(clock.millis(), detail);
        journal.append(persistenceId, after, event.serializer(), event.manifest(), event.bytes(),
                clock.millis());
        return after + 1;
    }

    /// Puts damaged entities back to their newest states that can be verified.
    ///
    /// @param only the id of one run; empty: all that are damaged
    /// @return the entities that were put back
    public List<EntityCheck> restore(Optional<String> only) {
        Path folder = OfflineJournal.folder(data);
        if (!EmbeddedDatabase.exists(folder)) throw new CommandFailed("there is no journal in " + folder
                + "; put back a whole copy of " + data + ", or start without it: bios up --accept-loss");
        if (files && !Files.isDirectory(data.resolve("blobs"))) throw new CommandFailed(
                "there are no blobs in " + data + ", without which no run can be verified; if they are"
                + " elsewhere, name the settings of the server with --config");
        boolean readable = readable(folder);
        if (readable && DataCheck.of(data, files).damaged().isEmpty()) return List.of();
        Path copy = copy(folder);
        if (!readable && !reopen(folder, copy))
            throw new CommandFailed("nothing of the journal in " + folder + " can be read; it stays as it is,"
                    + " with a copy in " + copy + ". Put back a whole copy of " + data
                    + ", or start without it: bios up --accept-loss");
        return putBack(only, copy).or(() -> {
            rebuild(folder, copy);
            return putBack(only, copy);
        }).orElseThrow(() -> new CommandFailed("the damaged entities of the journal in " + folder
                + " cannot be put back; its copy is " + copy + ". Put back a whole copy of " + data
                + ", or start with what is there: bios up --accept-loss"));
    }

    /// Whether nothing is left to put back. An index of the database that disagrees with its table makes rows
    /// disappear that a repair wrote.
    private boolean whole(Optional<String> only) {
        return (only.isPresent() || starts()) && DataCheck.of(data, files).damaged().stream()
                .filter(entity -> isOf(entity, only)).allMatch(EntityCheck::whole);
    }

    private static boolean isOf(EntityCheck entity, Optional<String> only) {
        return only.map(run -> entity.persistenceId().endsWith("|" + run)).orElse(true);
    }

    /// @return the entities that were put back; empty if some cannot be, because of the damage to the file
    private Optional<List<EntityCheck>> putBack(Optional<String> only, Path copy) {
        List<EntityCheck> damaged;
        try (OfflineJournal journal = OfflineJournal.change(data)) {
            Map<String, Long> known = journal.acknowledged().map(AcknowledgedLog.Contents::newest)
                    .orElse(Map.of());
            damaged = DataCheck.of(journal, files, known, new ArrayList<>()).damaged()
                    .stream().filter(entity -> isOf(entity, only)).toList();
            var acknowledged = new HashMap<>(known);
            journal.heads().forEach((id, head) -> acknowledged.merge(id, head, Math::max));
            journal.begin();
            for (EntityCheck entity : damaged) put(journal, entity, copy, acknowledged);
            journal.commit();
            journal.acknowledge(acknowledged);
            tellUnknown(damaged.stream().filter(entity -> entity.run() && entity.good() == 0)
                    .map(EntityCheck::persistenceId).toList(), acknowledged);
        } catch (SQLException failed) {
            output.accept("the journal is damaged: " + failed.getMessage().lines().findFirst().orElse(""));
            return Optional.empty();
        }
        return whole(only) ? Optional.of(damaged) : Optional.empty();
    }

    private void put(OfflineJournal journal, EntityCheck entity, Path copy, Map<String, Long> acknowledged)
            throws SQLException {
        String id = entity.persistenceId();
        journal.cut(id, entity.good(), entity.snapshots());
        acknowledged.put(id, entity.good());
        if (entity.good() == 0) acknowledged.remove(id);
        else if (entity.run() && !entity.whole()) acknowledged.put(id, record(journal, id, entity.good(),
                Map.of("by", "restore", "have", "" + entity.good(), "acknowledged",
                        "" + entity.acknowledged(), "operations", "" + entity.operations().orElse(0L),
                        "copy", copy.toString())));
        output.accept(entity.name() + (entity.whole() ? ": its journal is whole; " + String.join("; ",
                entity.problems()) : ": put back to event " + entity.good() + "; given up: "
                + entity.loses()));
    }

    /// Says which runs have blobs and nothing else any more.
    ///
    /// @param gone persistence ids of the runs of which nothing is left in the journal
    /// @param heads the newest event of each entity that is left
    private void tellUnknown(List<String> gone, Map<String, Long> heads) {
        if (files) for (UnknownRun unknown : UnknownRun.find(data, heads.keySet()))
            output.accept("not in the journal any more: " + unknown + "; they stay until 'bios restore"
                    + " --delete-unknown' deletes them");
        else gone.stream().flatMap(id -> JournalLoss.run(id).stream()).forEach(run -> output.accept("run "
                + run + " is not in the journal any more; its blobs, under runs/" + run
                + " in the blob store, stay until you delete them"));
    }

    /// Deletes the blobs of the runs that the journal does not know. [CommandFailed] if the journal lacks
    /// anything: the blobs may belong to what it lacks.
    ///
    /// @param only the id of one run; empty: all that are unknown
    /// @return the runs whose blobs were deleted
    public List<UnknownRun> deleteUnknown(Optional<String> only) {
        if (!files) throw new CommandFailed("the blobs are not in " + data + "; delete those of a run that"
                + " was given up, under runs/RUN in the blob store, with its own tools");
        DataCheck check = DataCheck.of(data, true);
        if (!check.journalWhole() || !EmbeddedDatabase.exists(OfflineJournal.folder(data)))
            throw new CommandFailed("the journal in " + OfflineJournal.folder(data) + " is not whole (bios"
                    + " fsck), and the blobs may belong to what it lacks; repair it first");
        // Open for changes, so that no server uses the folder meanwhile.
        try (OfflineJournal journal = OfflineJournal.change(data)) {
            List<UnknownRun> deleted = check.unknown().stream().filter(unknown ->
                    only.map(run -> run.equals(unknown.run().value())).orElse(true)).toList();
            for (UnknownRun unknown : deleted) {
                unknown.delete(journal.data());
                output.accept("deleted: " + unknown);
            }
            return deleted;
        }
    }

    /// A copy of the journal's folder, beside it.
    private Path copy(Path folder) {
        try {
            int number = 1;
            while (Files.exists(data.resolve("journal-before-restore-" + number))) number++;
            Path copy = Files.createDirectories(data.resolve("journal-before-restore-" + number));
            if (Files.isDirectory(folder)) try (Stream<Path> files = Files.list(folder)) {
                for (Path file : files.toList()) Files.copy(file, copy.resolve(file.getFileName()),
                        StandardCopyOption.COPY_ATTRIBUTES);
            }
            output.accept("the journal as it was: " + copy);
            return copy;
        } catch (IOException failed) {
            throw new CommandFailed("the journal in " + folder + " cannot be copied: " + failed.getMessage());
        }
    }

    /// Whether all of the journal can be read, and the file be changed.
    private boolean readable(Path folder) {
        if (!EmbeddedDatabase.exists(folder)) return true;
        try (OfflineJournal journal = OfflineJournal.read(data)) {
            Optional<String> failure = journal.readable() ? DataCheck.tryChange(data)
                    : Optional.of("parts of it cannot be read");
            failure.ifPresent(why -> output.accept("the journal in " + folder + " is damaged: " + why));
            return failure.isEmpty();
        } catch (JournalLoss unreadable) {
            output.accept(unreadable.getMessage().lines().findFirst().orElse(""));
            return false;
        }
    }

    /// Makes a file readable that the database cannot open or change.
    ///
    /// @return whether that was possible
    private boolean reopen(Path folder, Path copy) {
        try {
            EmbeddedDatabase.replace(folder, EmbeddedDatabase.file(copy));
            if (!opens() && !OfflineJournal.reopen(data)) return false;
            if (readable(folder)) output.accept("opened, with the newest state in the file that is whole");
            else salvage();
            return true;
        } catch (IOException | SQLException failed) {
            throw failure(folder, failed, copy);
        }
    }

    /// Builds the journal again from the rows of the damaged one, without its indices.
    private void rebuild(Path folder, Path copy) {
        try {
            EmbeddedDatabase.replace(folder, EmbeddedDatabase.file(copy));
            AcknowledgedLog.delete(folder);
            if (Files.exists(AcknowledgedLog.file(copy)))
                Files.copy(AcknowledgedLog.file(copy), AcknowledgedLog.file(folder));
            if (!opens()) OfflineJournal.reopen(data);
            salvage();
        } catch (IOException | SQLException failed) {
            throw failure(folder, failed, copy);
        }
    }

    private void salvage() throws SQLException, IOException {
        output.accept("built again from " + OfflineJournal.salvage(data, clock) + " rows that can be read");
    }

    private boolean opens() {
        try {
            OfflineJournal.read(data).close();
            return true;
        } catch (JournalLoss _) {
            return false;
        }
    }

    private static CommandFailed failure(Path folder, Exception failed, Path copy) {
        return new CommandFailed("the journal in " + folder + " cannot be changed: " + failed.getMessage()
                + "; its copy is " + copy);
    }
}
