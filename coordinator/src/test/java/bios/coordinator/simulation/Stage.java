package bios.coordinator.simulation;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Supplier;

/// Time, chance and the only thread of a simulation. What may run now waits in no order, and chance picks;
/// what runs later waits for its time. An actor system plays on it by [StageExecutor] and [StageScheduler],
/// so that the same seed gives the same history.
final class Stage {
    /// The stages by the name of their actor system: Pekko makes executors and schedulers from class names.
    private static final Map<String, Stage> STAGES = new ConcurrentHashMap<>();
    /// Epoch milliseconds at which every history begins.
    static final long BEGIN = 1_700_000_000_000L;

    /// Something that happens at a time, unless it is cancelled.
    static final class Later implements Comparable<Later> {
        private final long at;
        private final long order;
        private final Runnable task;
        private boolean over;

        private Later(long at, long order, Runnable task) {
            this.at = at;
            this.order = order;
            this.task = task;
        }

        /// Whether it was still to come.
        boolean cancel() {
            boolean was = !over;
            over = true;
            return was;
        }

        boolean over() {
            return over;
        }

        @Override public int compareTo(Later other) {
            return at != other.at ? Long.compare(at, other.at) : Long.compare(order, other.order);
        }
    }

    private final List<Runnable> ready = new ArrayList<>();
    private final PriorityQueue<Later> later = new PriorityQueue<>();
    private final List<String> trace = new ArrayList<>();
    private SplittableRandom random = new SplittableRandom(0);
    private volatile ExecutorService starting;
    private Object current;
    private boolean traced;
    private long now = BEGIN;
    private long order;
    private long steps;

    /// The stage of the actor system `name`, made when first asked for.
    static Stage of(String name) {
        return STAGES.computeIfAbsent(name, _ -> new Stage());
    }

    /// Begins a history.
    void begin(long seed, boolean traced) {
        if (!ready.isEmpty()) throw new IllegalStateException("an earlier history is still going on");
        later.clear();
        trace.clear();
        random = new SplittableRandom(seed);
        this.traced = traced;
        now = BEGIN;
        order = 0;
        steps = 0;
    }

    /// What the actors of this history find with [#current].
    void play(Object play) {
        current = play;
    }

    <T> T current(Class<T> type) {
        return type.cast(current);
    }

    long now() {
        return now;
    }

    long steps() {
        return steps;
    }

    // Chance

    int below(int bound) {
        return random.nextInt(bound);
    }

    /// True once in `times`; never for 0.
    boolean oneIn(int times) {
        return times > 0 && random.nextInt(times) == 0;
    }

    /// From `low` to `high`, both included.
    long between(long low, long high) {
        return random.nextLong(low, high + 1);
    }

    <T> T any(List<T> of) {
        return of.get(random.nextInt(of.size()));
    }

    // Work

    void soon(Runnable task) {
        ExecutorService thread = starting;
        if (thread != null) thread.execute(task);
        else ready.add(task);
    }

    /// Makes an actor system on this stage. It waits for its own actors while it starts, so that for so long
    /// they have a thread.
    <T> T start(Supplier<T> system) {
        try (var thread = Executors.newSingleThreadExecutor()) {
            starting = thread;
            T started = system.get();
            // Behind the tasks of the start, and those that they have brought.
            for (int i = 0; i < 100; i++) thread.submit(() -> {}).get();
            return started;
        } catch (InterruptedException | ExecutionException failed) {
            throw new IllegalStateException(failed);
        } finally {
            starting = null;
        }
    }

    Later in(long millis, Runnable task) {
        var what = new Later(now + Math.max(0, millis), order++, task);
        later.add(what);
        return what;
    }

    /// Does one thing; false: there is nothing to do any more.
    boolean step() {
        steps++;
        boolean slow = !ready.isEmpty() && !later.isEmpty() && random.nextInt(64) == 0;
        if (!ready.isEmpty() && !slow) {
            pick().run();
            return true;
        }
        Later next = later.poll();
        while (next != null && next.over) next = later.poll();
        if (next == null) return !ready.isEmpty();
        now = Math.max(now, next.at);
        next.over = true;
        next.task.run();
        return true;
    }

    /// Runs everything that may run now; what was scheduled for later is dropped.
    void end() {
        later.clear();
        for (int i = 0; !ready.isEmpty(); i++) {
            if (i > 1_000_000) throw new IllegalStateException("the history does not end");
            pick().run();
        }
        later.clear();
        current = null;
    }

    private Runnable pick() {
        int at = ready.size() == 1 ? 0 : random.nextInt(ready.size());
        Runnable picked = ready.get(at);
        ready.set(at, ready.getLast());
        ready.removeLast();
        return picked;
    }

    // The trace

    void trace(Supplier<String> line) {
        if (traced) trace.add(now - BEGIN + " " + line.get());
    }

    List<String> traced() {
        return List.copyOf(trace);
    }
}
