package bios.repair;

import bios.CommandFailed;
import bios.persistence.blob.BlobDamaged;
import bios.persistence.blob.BlobMissing;
import bios.persistence.blob.BlobStore;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.embedded.AcknowledgedLog;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JournalLoss;
import bios.persistence.journal.OfflineJournal;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.run.RunId;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Predicate;
import java.util.function.ToLongFunction;

/// A check of a data folder that no process serves: the journal against what was acknowledged, every event
/// and snapshot, and every blob to which a run refers. Nothing is changed.
///
/// @param general what is wrong with the folder as a whole
/// @param entities every entity of the journal
/// @param unknown runs that have blobs in the folder and nothing in the journal
public record DataCheck(List<String> general, List<EntityCheck> entities, List<UnknownRun> unknown) {
    public DataCheck {
        general = List.copyOf(general);
        entities = List.copyOf(entities);
        unknown = List.copyOf(unknown);
    }

    /// Whether all is well.
    public boolean clean() {
        return general.isEmpty() && damaged().isEmpty();
    }

    /// The entities with a problem.
    public List<EntityCheck> damaged() {
        return entities.stream().filter(entity -> !entity.problems().isEmpty()).toList();
    }

    /// Whether the journal has everything that was acknowledged. Blobs may be damaged.
    boolean journalWhole() {
        return general.isEmpty() && entities.stream().allMatch(EntityCheck::whole);
    }

    /// Checks a data folder. [bios.persistence.embedded.DatabaseInUse] if a process serves it.
    ///
    /// @param files whether the blobs are files in the folder; otherwise they are not checked
    public static DataCheck of(Path data, boolean files) {
        Path folder = OfflineJournal.folder(data);
        List<String> general = new ArrayList<>();
        Map<String, Long> known = acknowledged(folder, general);
        if (!EmbeddedDatabase.exists(folder)) {
            List<String> runs = OfflineJournal.runsWithBlobs(data);
            if (!known.isEmpty() || !runs.isEmpty())
                general.add("the journal in " + folder + " is missing or empty" + (known.isEmpty()
                        ? ", but there are blobs of the runs " + String.join(", ", runs) : ""));
            return allLost(general, known, "the journal is missing");
        }
        try (OfflineJournal journal = OfflineJournal.read(data)) {
            DataCheck check = of(journal, files, known, general);
            if (!check.clean()) return check;
            tryChange(data).ifPresent(why ->
                    general.add("the journal in " + folder + " can be read, but not be changed: " + why));
            return new DataCheck(general, check.entities(), check.unknown());
        } catch (JournalLoss unreadable) {
            general.add(unreadable.getMessage().lines().findFirst().orElse(""));
            return allLost(general, known, "the journal cannot be read");
        }
    }

    /// [OfflineJournal#tryChange]; [CommandFailed] where there is no room for the copy.
    static Optional<String> tryChange(Path data) {
        try {
            return OfflineJournal.tryChange(data);
        } catch (IOException failed) {
            throw new CommandFailed("the journal in " + OfflineJournal.folder(data) + " cannot be copied to"
                    + " the folder for temporary files: " + failed.getMessage() + "; make room, or name"
                    + " another folder in JAVA_TOOL_OPTIONS=-Djava.io.tmpdir=...");
        }
    }

    private static DataCheck allLost(List<String> general, Map<String, Long> known, String why) {
        return new DataCheck(general, known.entrySet().stream().map(entry -> new EntityCheck(entry.getKey(),
                entry.getValue(), List.of(why), 0, List.of(), Optional.empty())).toList(), List.of());
    }

    private static Map<String, Long> acknowledged(Path folder, List<String> general) {
        try {
            var file = AcknowledgedLog.read(folder);
            if (file.filter(AcknowledgedLog.Contents::damaged).isPresent())
                general.add(AcknowledgedLog.file(folder) + " is damaged");
            return file.map(AcknowledgedLog.Contents::newest).orElse(Map.of());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    /// Checks an open journal and the blobs beside it.
    ///
    /// @param known the newest acknowledged event of each entity
    static DataCheck of(OfflineJournal journal, boolean files, Map<String, Long> known,
            List<String> general) {
        var expected = new TreeMap<>(known);
        try {
            journal.heads().forEach((id, head) -> expected.merge(id, head, Math::max));
        } catch (SQLException failed) {
            general.add("the journal cannot be read: " + failed.getMessage());
        }
        if (!files) return new DataCheck(general, check(journal, expected, _ -> 0, _ -> true), List.of());
        List<UnknownRun> unknown = general.isEmpty() ? UnknownRun.find(journal.data(), expected.keySet())
                : List.of();
        try (Blobs blobs = Blobs.open(journal.data())) {
            return new DataCheck(general, check(journal, expected, blobs::newestEvent, blobs::whole),
                    unknown);
        }
    }

    private static List<EntityCheck> check(OfflineJournal journal, Map<String, Long> expected,
            ToLongFunction<String> proven, Predicate<BlobId> blob) {
        return expected.entrySet().stream().map(entry -> EntityCheck.of(journal.rows(entry.getKey()),
                entry.getValue(), proven.applyAsLong(entry.getKey()), blob)).toList();
    }

    /// The blobs of the folder, each read once.
    static final class Blobs implements AutoCloseable {
        private final Optional<FileBlobStore> store;
        private final Map<BlobId, Boolean> read = new HashMap<>();
        private final Map<String, Map<BlobId, BlobRef>> listed = new HashMap<>();

        private Blobs(Optional<FileBlobStore> store) {
            this.store = store;
        }

        static Blobs open(Path data) {
            Path root = data.resolve("blobs");
            return new Blobs(Files.isDirectory(root) ? Optional.of(FileBlobStore.open(root))
                    : Optional.empty());
        }

        /// The newest event of a run that the names of its blobs prove; 0: none.
        long newestEvent(String persistenceId) {
            Optional<String> run = JournalLoss.run(persistenceId);
            if (store.isEmpty() || run.isEmpty()) return 0;
            return store.get().list(BlobScope.run(new RunId(run.get()))).stream()
                    .mapToLong(each -> BlobScope.event(each.ref().id())).max().orElse(0);
        }

        boolean whole(BlobId id) {
            return read.computeIfAbsent(id, this::verify);
        }

        private boolean verify(BlobId id) {
            if (store.isEmpty()) return false;
            BlobRef ref = listed.computeIfAbsent(id.scope(), this::list).get(id);
            if (ref == null) return false;
            try (InputStream in = store.get().open(ref)) {
                in.transferTo(OutputStream.nullOutputStream());
                return true;
            } catch (BlobDamaged | BlobMissing | IOException | UncheckedIOException _) {
                return false;
            }
        }

        private Map<BlobId, BlobRef> list(String scope) {
            Map<BlobId, BlobRef> found = new HashMap<>();
            for (BlobStore.ListedBlob blob : store.orElseThrow().list(scope))
                found.put(blob.ref().id(), blob.ref());
            return found;
        }

        @Override public void close() {
            store.ifPresent(FileBlobStore::close);
        }
    }
}
