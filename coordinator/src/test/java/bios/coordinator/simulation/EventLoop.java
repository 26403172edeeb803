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

/// The clock, the random numbers and the only thread of a simulation. Tasks that are ready run in random
/// order; scheduled tasks run at their time. [EventLoopExecutor] and [EventLoopScheduler] connect an actor
/// system to the loop, so that the same seed gives the same history.
final class EventLoop {
    /// The event loops by the name of their actor system, because Pekko creates executors and schedulers by
    /// class name.
    private static final Map<String, EventLoop> LOOPS = new ConcurrentHashMap<>();
    /// The start time of every history, epoch milliseconds.
    static final long BEGIN = 1_700_000_000_000L;

    /// A scheduled task.
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

        /// Cancels the task; returns whether it had not run yet.
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

    /// The event loop of the actor system `name`; created by the first call.
    static EventLoop of(String name) {
        return LOOPS.computeIfAbsent(name, _ -> new EventLoop());
    }

    /// Starts a history.
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

    /// Sets the object that [#current] returns to the actors of this history.
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

    // Random choices

    int below(int bound) {
        return random.nextInt(bound);
    }

    /// Whether a random choice with probability 1 / `times` hits; never for 0.
    boolean oneIn(int times) {
        return times > 0 && random.nextInt(times) == 0;
    }

    /// A random number from `low` to `high`, both included.
    long between(long low, long high) {
        return random.nextLong(low, high + 1);
    }

    <T> T any(List<T> of) {
        return of.get(random.nextInt(of.size()));
    }

    // Tasks

    void soon(Runnable task) {
        ExecutorService thread = starting;
        if (thread != null) thread.execute(task);
        else ready.add(task);
    }

    /// Creates an actor system on this loop. Its start blocks until its actors answer, so tasks run on a
    /// thread until then.
    <T> T start(Supplier<T> system) {
        try (var thread = Executors.newSingleThreadExecutor()) {
            starting = thread;
            T started = system.get();
            // Waits for the tasks of the start and the tasks that they have added.
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

    /// Runs one task; false: no task is left.
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

    /// Runs all ready tasks and discards scheduled ones.
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
