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

/// Which runs have their state on the device, who waits for room there, and who is asked to go: the least
/// recently used of those that have nothing to do; where that is not enough for the first who waits, the
/// least recently used of those that have done something since they came. So more busy runs than there is
/// room for take turns. Bookkeeping only: who asks opens, tells and closes.
final class RunAdmission {
    private final long limit;
    private final int maxWaiting;
    private final Map<RunId, Place> places = new LinkedHashMap<>();   // least recently used first
    private final Deque<Wish> waiting = new ArrayDeque<>();
    private long bytes;

    /// @param limit most bytes of all states
    /// @param maxWaiting most runs that wait
    RunAdmission(long limit, int maxWaiting) {
        this.limit = limit;
        this.maxWaiting = maxWaiting;
    }

    private static final class Place {
        long bytes;
        boolean worked;
        boolean asked;

        Place(long bytes) {
            this.bytes = bytes;
        }
    }

    private record Wish(RunId run, long bytes) {}

    /// What becomes of a wish for room.
    sealed interface Answer {
        /// It is its now.
        record Granted() implements Answer {}

        /// [#granted] will name it.
        record Waits() implements Answer {}

        /// Too many wait already.
        record Crowded(int waiting) implements Answer {}

        /// More than all the room there is.
        record TooLarge(long limit) implements Answer {}
    }

    /// A run that has no place asks for one.
    Answer want(RunId run, long size) {
        require(!places.containsKey(run), "run %s has a place", run);
        if (size > limit) return new Answer.TooLarge(limit);
        if (waiting.isEmpty() && bytes + size <= limit) {
            place(run, size);
            return new Answer.Granted();
        }
        if (waiting.size() >= maxWaiting) return new Answer.Crowded(waiting.size());
        waiting.add(new Wish(run, size));
        return new Answer.Waits();
    }

    private void place(RunId run, long size) {
        places.put(run, new Place(size));
        bytes += size;
    }

    /// A run that has a place is about to need another size. It need not wait, for it holds what others wait
    /// for: beyond the limit, others are asked to go.
    ///
    /// @return whether it can ever fit
    boolean grow(RunId run, long size) {
        if (size > limit) return false;
        Place place = places.get(run);
        bytes += size - place.bytes;
        place.bytes = size;
        return true;
    }

    /// A run has been given something to do.
    void used(RunId run) {
        Place place = places.remove(run);
        if (place != null) places.put(run, place);
    }

    /// A run has done something.
    void worked(RunId run) {
        Place place = places.get(run);
        if (place != null) place.worked = true;
    }

    /// A run is gone, or does not wait any more.
    void left(RunId run) {
        Place place = places.remove(run);
        if (place != null) bytes -= place.bytes;
        waiting.removeIf(wish -> wish.run.equals(run));
    }

    /// Those who have waited and have a place now, in the order in which they came.
    List<RunId> granted() {
        List<RunId> all = new ArrayList<>();
        while (!waiting.isEmpty() && bytes + waiting.peek().bytes <= limit) {
            Wish first = waiting.poll();
            place(first.run, first.bytes);
            all.add(first.run);
        }
        return all;
    }

    /// Who is to be asked to go, each once.
    ///
    /// @param idle whether a run has nothing to do
    List<RunId> crowded(Predicate<RunId> idle) {
        if (waiting.isEmpty() && bytes <= limit) return List.of();
        long going = places.values().stream().filter(p -> p.asked).mapToLong(p -> p.bytes).sum();
        long free = limit - bytes + going;
        long all = waiting.stream().mapToLong(Wish::bytes).sum();
        List<RunId> asked = new ArrayList<>();
        free = ask(all, free, idle, asked);
        long first = waiting.isEmpty() ? 0 : waiting.peek().bytes;
        ask(first, free, run -> places.get(run).worked, asked);
        return asked;
    }

    private long ask(long needed, long free, Predicate<RunId> may, List<RunId> asked) {
        for (Iterator<RunId> each = places.keySet().iterator(); free < needed && each.hasNext(); ) {
            RunId run = each.next();
            Place place = places.get(run);
            if (place.asked || !may.test(run)) continue;
            place.asked = true;
            free += place.bytes;
            asked.add(run);
        }
        return free;
    }

    /// Asks the least recently used idle run to go although nobody waits: memory ran out.
    List<RunId> squeeze(Predicate<RunId> idle) {
        List<RunId> asked = new ArrayList<>();
        ask(1, 0, idle, asked);
        return asked;
    }

    /// Bytes of all states that have a place.
    long bytes() {
        return bytes;
    }
}
