package bios.protocol.run;

import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// An entry of a run's history. Entries are stored permanently: kinds are only added, never renamed.
///
/// @param timeMillis time of the entry, epoch milliseconds
/// @param node the name of the node that wrote it; empty in entries from events of builds without histories
/// @param position the operation of the entry, from 1
/// @param seq the sequence number of that operation
/// @param detail further values by name; docs/reference/http.md lists the names of each kind
/// @param number rises with each entry of a history; empty before the entry is in one, and in entries of
///     earlier builds
public record HistoryEntry(long timeMillis, Optional<String> node, Kind kind, Optional<Long> position,
        Optional<Long> seq, Map<String, String> detail,
        @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<Long> number) {
    private static final int LONGEST = 500;

    /// The kinds of entries.
    public enum Kind {
        CREATED,
        /// The engine of a node has opened the run.
        OPENED,
        /// The run was opened on another node than before.
        MOVED,
        /// The replay after a failure is finished.
        RECOVERED,
        RECOVERY_POINT,
        RECOVERY_POINT_FAILED,
        OPERATION_FAILED,
        /// Not written by this build: operations are replayed one at a time.
        ATTEMPT,
        /// An operation was given up because workers ended while they executed it.
        POISONED_OPERATION,
        CHECKPOINT_SAVED,
        CHECKPOINT_DELETED,
        CHECKPOINT_EXPIRED,
        /// A checkpoint's expiry time was set or removed.
        EXPIRY_SET,
        /// A checkpoint was loaded.
        LOADED,
        /// Not written by this build: results before the recovery point are lost.
        RESULTS_LOST,
        /// The engine has lost the run.
        LEFT_ENGINE,
        /// The entity was stopped because the run was idle; the next request starts it again.
        PASSIVATED,
        /// The run was evicted from the engine because of other runs.
        EVICTED,
        /// The node shuts down and hands the run over.
        DRAINING,
        UNLOADED,
        /// The run cannot proceed until a fault is repaired; it retries automatically.
        WAITING,
        /// A worker ended while it executed an operation of the run.
        WORKER_DIED,
        /// An operation is not tried again by itself; those after it wait.
        SET_ASIDE,
        /// The owner has requested that the operation that was set aside is tried again.
        RETRIED,
        /// Acknowledged events were lost or damaged in the journal, and an operator gave them up.
        DATA_LOST,
        /// A checkpoint is readable by every account.
        CHECKPOINT_PUBLISHED,
        /// A checkpoint is readable by its owner only.
        CHECKPOINT_UNPUBLISHED,
        /// A recovery point has a weight or moment that is infinite or NaN.
        STATE_NOT_FINITE
    }

    public HistoryEntry {
        var shortened = new TreeMap<String, String>();
        detail.forEach((name, text) -> shortened.put(name,
                text.length() <= LONGEST ? text : text.substring(0, LONGEST) + "..."));
        detail = Map.copyOf(shortened);
    }

    /// An entry that is in no history yet.
    public HistoryEntry(long timeMillis, Optional<String> node, Kind kind, Optional<Long> position,
            Optional<Long> seq, Map<String, String> detail) {
        this(timeMillis, node, kind, position, seq, detail, Optional.empty());
    }

    /// The same with a number.
    public HistoryEntry numbered(long given) {
        return new HistoryEntry(timeMillis, node, kind, position, seq, detail, Optional.of(given));
    }

    /// Whether the entry equals `other` apart from its time and number.
    public boolean repeats(HistoryEntry other) {
        return kind == other.kind && node.equals(other.node) && position.equals(other.position)
                && seq.equals(other.seq) && detail.equals(other.detail);
    }
}
