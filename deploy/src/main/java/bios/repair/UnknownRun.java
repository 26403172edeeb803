package bios.repair;

import bios.persistence.blob.BlobStore.ListedBlob;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.journal.JournalLoss;
import bios.persistence.journal.OfflineJournal;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.run.RunId;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;

/// A run that has blobs in the data folder, while neither the journal nor what was acknowledged knows it: it
/// was given up with all of its events. Only the entity of a run deletes blobs, so these stay until somebody
/// asks for their deletion.
///
/// @param blobs all of them
/// @param bytes of all blobs
/// @param folder of the blobs
public record UnknownRun(RunId run, List<BlobId> blobs, long bytes, Path folder) {
    public UnknownRun {
        blobs = List.copyOf(blobs);
    }

    /// The unknown runs of a data folder.
    ///
    /// @param known the persistence ids of all entities that the journal has or should have
    static List<UnknownRun> find(Path data, Collection<String> known) {
        Set<String> runs = known.stream().flatMap(id -> JournalLoss.run(id).stream())
                .collect(Collectors.toSet());
        List<String> unknown = OfflineJournal.runsWithBlobs(data).stream()
                .filter(run -> !runs.contains(run)).toList();
        if (unknown.isEmpty()) return List.of();
        try (var store = FileBlobStore.open(data.resolve("blobs"))) {
            return unknown.stream().map(RunId::new).map(run -> of(run, store)).toList();
        }
    }

    private static UnknownRun of(RunId run, FileBlobStore store) {
        List<ListedBlob> all = store.list(BlobScope.run(run));
        return new UnknownRun(run, all.stream().map(each -> each.ref().id()).toList(),
                all.stream().mapToLong(each -> each.ref().bytes()).sum(),
                Path.of(store.toString()).resolve(BlobScope.run(run)));
    }

    /// Deletes the blobs.
    void delete(Path data) {
        try (var store = FileBlobStore.open(data.resolve("blobs"))) {
            blobs.forEach(store::delete);
        }
    }

    @Override public String toString() {
        return "run " + run + ": " + blobs.size() + " blobs, " + bytes + " bytes in " + folder;
    }
}
