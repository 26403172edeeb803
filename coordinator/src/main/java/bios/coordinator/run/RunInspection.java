package bios.coordinator.run;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.StoredOperation;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// A run as its stored snapshot and events describe it, for checks and repairs of a journal that no process
/// serves.
public final class RunInspection {
    private static final RunStored STORED = new RunStored();
    /// No stored history is longer; the entity shortens it.
    private static final int HISTORY = 100_000;
    /// A run without a snapshot and events.
    public static final RunInspection NONE = new RunInspection(TrainingRun.NONE);

    private final TrainingRun run;

    private RunInspection(TrainingRun run) {
        this.run = run;
    }

    /// An event as it is stored.
    ///
    /// @param serializer identifier of its serializer
    public record StoredEvent(int serializer, String manifest, byte[] bytes) {}

    /// The run of a snapshot. Throws a [RuntimeException] if the bytes cannot be read.
    public static RunInspection ofSnapshot(String manifest, byte[] bytes) {
        return new RunInspection((TrainingRun) STORED.fromBinary(bytes, manifest));
    }

    /// The run after another event. Throws a [RuntimeException] if the bytes cannot be read or the run does
    /// not allow the event.
    public RunInspection after(String manifest, byte[] bytes) {
        return new RunInspection(run.apply((RunEvent) STORED.fromBinary(bytes, manifest), HISTORY));
    }

    /// Whether the run was created.
    public boolean created() {
        return run.config().isPresent();
    }

    /// The number of accepted operations.
    public long accepted() {
        return run.accepted();
    }

    /// Whether the journal lacks events that it had when blobs of the run were written.
    ///
    /// @param proven the newest event that the names of its blobs prove
    /// @param last the newest event of this state
    public boolean lacks(long proven, long last) {
        return run.lacks(proven, last);
    }

    /// The blobs without which the run cannot go on: its recovery point, and what the operations after it
    /// read.
    public Set<BlobId> needed() {
        return Stream.concat(run.recovery().state().map(BlobRef::id).stream(), run.pending().stream()
                .filter(PendingOperation::needsInput)
                .map(PendingOperation::operation).filter(StoredOperation.InBlob.class::isInstance)
                .map(operation -> ((StoredOperation.InBlob) operation).blob().id()))
                .collect(Collectors.toSet());
    }

    /// The other blobs of the run: checkpoints and results.
    public Set<BlobId> others() {
        Set<BlobId> all = new HashSet<>(run.referenced());
        all.removeAll(needed());
        return all;
    }

    /// The event that records in the history of a run what was given up. The next operation of its client
    /// fails with `data_lost`, so that no client trains on without knowing.
    ///
    /// @param detail `by`, `have` and more, as docs/reference/http.md lists them
    public static StoredEvent dataLost(long timeMillis, Map<String, String> detail) {
        var event = new RunEvent.HistoryRecorded(new HistoryEntry(timeMillis, Optional.empty(),
                HistoryEntry.Kind.DATA_LOST, Optional.empty(), Optional.empty(), detail));
        return new StoredEvent(STORED.identifier(), STORED.manifest(event), STORED.toBinary(event));
    }
}
