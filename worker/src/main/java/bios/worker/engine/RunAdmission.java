package bios.worker.engine;

import static bios.protocol.Require.require;

import bios.protocol.run.RunId;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;

/// Admits runs to the device within a limit of bytes, queues the others, and selects runs to evict: the least
/// recently used of those that are idle; where that is not enough for the first in the queue, the least
/// recently used of those that have executed something since they were admitted. So more busy runs than there
/// is room for take turns. Bookkeeping only.
final class RunAdmission {
    private final long limit;
    private final int maxWaiting;
    private final Map<RunId, Admitted> admitted = new LinkedHashMap<>();   // least recently used first
    private final Deque<Request> waiting = new ArrayDeque<>();
    private long bytes;

    /// @param limit most bytes of all states
    /// @param maxWaiting most runs in the queue
    RunAdmission(long limit, int maxWaiting) {
        this.limit = limit;
        this.maxWaiting = maxWaiting;
    }

    private static final class Admitted {
        long bytes;
        boolean executed;
        boolean evicting;

        Admitted(long bytes) {
            this.bytes = bytes;
        }
    }

    private record Request(RunId run, long bytes) {}

    /// The answer to a request.
    sealed interface Answer {
        /// Admitted.
        record Granted() implements Answer {}

        /// Queued: [#admitWaiting] will return the run.
        record Queued() implements Answer {}

        /// The queue is full.
        record QueueFull(int waiting) implements Answer {}

        /// More bytes than the limit.
        record TooLarge(long limit) implements Answer {}
    }

    /// Requests room for a run that is not admitted.
    Answer request(RunId run, long size) {
        require(!admitted.containsKey(run), "run %s is admitted already", run);
        if (size > limit) return new Answer.TooLarge(limit);
        if (waiting.isEmpty() && bytes + size <= limit) {
            admit(run, size);
            return new Answer.Granted();
        }
        if (waiting.size() >= maxWaiting) return new Answer.QueueFull(waiting.size());
        waiting.add(new Request(run, size));
        return new Answer.Queued();
    }

    private void admit(RunId run, long size) {
        admitted.put(run, new Admitted(size));
        bytes += size;
    }

    /// Changes the size of an admitted run. It does not wait, because it occupies what others wait for:
    /// beyond the limit, others are evicted.
    ///
    /// @return false, and nothing changed: it can never fit
    boolean resize(RunId run, long size) {
        if (size > limit) return false;
        Admitted entry = admitted.get(run);
        bytes += size - entry.bytes;
        entry.bytes = size;
        return true;
    }

    /// Marks a run as the most recently used.
    void touch(RunId run) {
        Admitted entry = admitted.remove(run);
        if (entry != null) admitted.put(run, entry);
    }

    /// A run has executed an operation.
    void executed(RunId run) {
        Admitted entry = admitted.get(run);
        if (entry != null) entry.executed = true;
    }

    /// Removes a run, admitted or queued.
    void remove(RunId run) {
        Admitted entry = admitted.remove(run);
        if (entry != null) bytes -= entry.bytes;
        waiting.removeIf(request -> request.run.equals(run));
    }

    /// Admits the first runs in the queue for which there is room.
    ///
    /// @return them, in the order of their requests
    List<RunId> admitWaiting() {
        List<RunId> all = new ArrayList<>();
        while (!waiting.isEmpty() && bytes + waiting.peek().bytes <= limit) {
            Request first = waiting.poll();
            admit(first.run, first.bytes);
            all.add(first.run);
        }
        return all;
    }

    /// Selects the runs to evict for those in the queue; each run is selected once.
    ///
    /// @param idle whether a run has nothing to do
    List<RunId> selectEvictions(Predicate<RunId> idle) {
        if (waiting.isEmpty() && bytes <= limit) return List.of();
        long evicting = admitted.values().stream().filter(a -> a.evicting).mapToLong(a -> a.bytes).sum();
        long free = limit - bytes + evicting;
        long all = waiting.stream().mapToLong(Request::bytes).sum();
        List<RunId> selected = new ArrayList<>();
        free = select(all, free, idle, selected);
        long first = waiting.isEmpty() ? 0 : waiting.peek().bytes;
        select(first, free, run -> admitted.get(run).executed, selected);
        return selected;
    }

    private long select(long needed, long free, Predicate<RunId> allowed, List<RunId> selected) {
        for (Iterator<RunId> each = admitted.keySet().iterator(); free < needed && each.hasNext(); ) {
            RunId run = each.next();
            Admitted entry = admitted.get(run);
            if (entry.evicting || !allowed.test(run)) continue;
            entry.evicting = true;
            free += entry.bytes;
            selected.add(run);
        }
        return free;
    }

    /// Selects the least recently used idle run although no run waits: the device's memory ran out.
    List<RunId> selectOneEviction(Predicate<RunId> idle) {
        List<RunId> selected = new ArrayList<>();
        select(1, 0, idle, selected);
        return selected;
    }

    /// Bytes of all admitted runs.
    long bytes() {
        return bytes;
    }
}
