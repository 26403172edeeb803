package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.run.OperationResult;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// Outcomes that clients may ask for, within bounds: beyond them those that were fetched go first, then the
/// oldest. Belongs to one actor.
final class Results {
    /// The outcome of one operation: a result or a fault.
    record Kept(long position, long seq, String digest, Optional<OperationResult> result,
            Optional<Fault> fault) {
        /// About how many bytes it takes.
        long bytes() {
            return 512 + result.map(r -> switch (r) {
                case OperationResult.Evaluated(var logprobs, var metrics) ->
                    logprobs.stream().mapToLong(l -> 16 + 4L * l.length).sum() + 64L * metrics.size();
                case OperationResult.Stepped _, OperationResult.Loaded _ -> 128L;
                case OperationResult.Saved _ -> 1024L;
            }).orElse(0L);
        }
    }

    /// What a recovery point keeps, as it is stored.
    record KeptResults(List<Kept> results) {
        KeptResults {
            results = List.copyOf(results);
        }
    }

    private final int maxCount;
    private final long maxBytes;
    private final TreeMap<Long, Kept> byPosition = new TreeMap<>();
    private final TreeMap<Long, Kept> fetched = new TreeMap<>();
    private final Map<Long, Long> bySeq = new HashMap<>();
    private long bytes;

    Results(int maxCount, long maxBytes) {
        this.maxCount = maxCount;
        this.maxBytes = maxBytes;
    }

    void add(Kept kept) {
        remove(kept.position());
        byPosition.put(kept.position(), kept);
        bySeq.put(kept.seq(), kept.position());
        bytes += kept.bytes();
        while (byPosition.size() > 1 && (byPosition.size() > maxCount || bytes > maxBytes))
            remove(fetched.isEmpty() ? byPosition.firstKey() : fetched.firstKey());
    }

    private void remove(long position) {
        Kept gone = byPosition.remove(position);
        if (gone == null) return;
        fetched.remove(position);
        bySeq.remove(gone.seq());
        bytes -= gone.bytes();
    }

    Optional<Kept> bySeq(long seq) {
        return Optional.ofNullable(bySeq.get(seq)).map(byPosition::get);
    }

    /// Its client has it; it may ask again as long as there is room.
    void fetched(Kept kept) {
        if (byPosition.containsKey(kept.position())) fetched.put(kept.position(), kept);
    }

    /// Those up to a position.
    List<Kept> upTo(long position) {
        return List.copyOf(byPosition.headMap(position, true).values());
    }
}
