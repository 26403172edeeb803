package bios.protocol.run;

import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// An entry of a run's history: what happened to the run, when and where. Kept for ever: kinds are only
/// added, never renamed.
///
/// @param timeMillis when, epoch milliseconds
/// @param node the name of the node that wrote it; empty in what builds without histories stored
/// @param position of the operation that it is about, from 1
/// @param seq the client's number of that operation
/// @param detail what else there is to say, by name; docs/reference/http.md lists the names of each kind
public record HistoryEntry(long timeMillis, Optional<String> node, Kind kind, Optional<Long> position,
        Optional<Long> seq, Map<String, String> detail) {
    private static final int LONGEST = 500;

    /// What can happen to a run.
    public enum Kind {
        CREATED,
        /// The engine of a node has its state.
        OPENED,
        /// It runs on another node than before.
        MOVED,
        /// Everything that a failure had undone is replayed.
        RECOVERED,
        RECOVERY_POINT,
        RECOVERY_POINT_FAILED,
        OPERATION_FAILED,
        /// After a failure, operations are executed alone.
        ATTEMPT,
        /// An operation was given up because it terminated its worker.
        POISONED_OPERATION,
        CHECKPOINT_SAVED,
        CHECKPOINT_DELETED,
        CHECKPOINT_EXPIRED,
        /// A checkpoint's expiry time was set or removed.
        EXPIRY_SET,
        /// A checkpoint was loaded.
        LOADED,
        /// Results before its recovery point are lost.
        RESULTS_LOST,
        /// The engine does not have its state any more.
        LEFT_ENGINE,
        /// It was idle and its entity was stopped; the next request starts it again.
        PASSIVATED,
        /// Its state was evicted from the engine, for other runs.
        EVICTED,
        /// Its node shuts down and hands it over.
        DRAINING,
        UNLOADED,
        /// It cannot proceed until a fault is repaired; it retries automatically.
        WAITING
    }

    public HistoryEntry {
        var shortened = new TreeMap<String, String>();
        detail.forEach((name, text) -> shortened.put(name,
                text.length() <= LONGEST ? text : text.substring(0, LONGEST) + "..."));
        detail = Map.copyOf(shortened);
    }

    /// Whether it says the same as `other`, time apart.
    public boolean repeats(HistoryEntry other) {
        return kind == other.kind && node.equals(other.node) && position.equals(other.position)
                && seq.equals(other.seq) && detail.equals(other.detail);
    }
}
