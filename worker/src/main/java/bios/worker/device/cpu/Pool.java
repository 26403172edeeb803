package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;

/// A fixed number of platform threads that execute numbered tasks; the caller is thread 0. Each thread
/// executes the tasks of its own part from the front, so that it reads memory in order, and then steals tasks
/// from the end of other parts. Which thread executes a task is not determined, so a result may depend only
/// on the task's number.
final class Pool implements AutoCloseable {
    /// One task. `thread` (0 to size - 1) is the index of the executing thread and of its workspace.
    interface Task {
        void run(int task, int thread);
    }

    private static final class Job {
        final int tasks;
        final Task body;
        final Thread caller = Thread.currentThread();
        /// For each thread's part, or one part for all: the index of the first free task in the lower half,
        /// the end of the free tasks (exclusive) in the upper half.
        final AtomicLongArray parts;
        final AtomicInteger done = new AtomicInteger();
        volatile Throwable failure;

        Job(int tasks, int count, Task body) {
            this.tasks = tasks;
            this.body = body;
            parts = new AtomicLongArray(count * LINE);
            for (int i = 0; i < count; i++)
                parts.setPlain(i * LINE, (long) tasks * (i + 1) / count << 32 | (long) tasks * i / count);
        }

        /// Claims a task; -1 when none is free.
        private int take(int thread) {
            int count = parts.length() / LINE;
            for (int i = 0; i < count; i++) {
                int at = (thread + i) % count * LINE;
                for (long part; (int) (part = parts.get(at)) < (int) (part >>> 32); ) {
                    long rest = i == 0 ? part + 1 : part - (1L << 32);
                    if (parts.compareAndSet(at, part, rest))
                        return i == 0 ? (int) part : (int) (rest >>> 32);
                }
            }
            return -1;
        }

        void execute(int thread) {
            for (int task; (task = take(thread)) >= 0; ) {
                try {
                    body.run(task, thread);
                } catch (Throwable t) {
                    failure = t;
                }
                if (done.incrementAndGet() == tasks) LockSupport.unpark(caller);
            }
        }
    }

    /// Longs of a cache line: parts of two threads do not share one.
    private static final int LINE = 8;
    /// How long a thread spins for the next job before it parks: within a pass the next job comes sooner, and
    /// waking a parked thread takes longer than many jobs.
    private static final long SPIN_NANOS = 50_000;
    /// Spins between two readings of the clock.
    private static final int CLOCK_INTERVAL = 16;

    /// Fewest operations that are spread over the threads: about 5 µs of arithmetic or copying.
    static final long PARALLEL_OPERATIONS = 1 << 18;

    /// Elements of the rows of a matrix that form one task, roughly.
    private static final int GRAIN = 1 << 14;

    private final List<Thread> threads = new ArrayList<>();
    private final int size;
    private volatile Job current;
    private volatile boolean closed;

    Pool(int size) {
        require(size >= 1, "a pool of %d threads", size);
        this.size = size;
        for (int i = 1; i < size; i++) {
            int thread = i;
            threads.add(Thread.ofPlatform().daemon().name("device-" + thread).start(() -> runJobs(thread)));
        }
    }

    int size() {
        return size;
    }

    /// As [#run(int, Task)]; on the caller's thread alone if there are fewer than [#PARALLEL_OPERATIONS]
    /// operations in all.
    void run(int tasks, long operations, Task body) {
        if (operations >= PARALLEL_OPERATIONS) run(tasks, body);
        else for (int task = 0; task < tasks; task++) body.run(task, 0);
    }

    /// Runs `body` for each row of a matrix; a task has several rows if they are short. On the caller's
    /// thread alone if there are few operations.
    ///
    /// @param cost approximate operations of one element
    void rows(int rows, int columns, int cost, Task body) {
        int each = Math.max(1, GRAIN / Math.max(1, columns));
        run((rows + each - 1) / each, (long) cost * rows * columns, (task, thread) -> {
            int end = Math.min(rows, (task + 1) * each);
            for (int row = task * each; row < end; row++) body.run(row, thread);
        });
    }

    /// Runs tasks 0 to `tasks` - 1 and waits for all. Rethrows a failure after all other tasks have ended.
    void run(int tasks, Task body) {
        run(new Job(tasks, size, body));
    }

    /// The same, but every idle thread executes the first free task of all: for tasks that read a file in
    /// order.
    void runInOrder(int tasks, Task body) {
        run(new Job(tasks, 1, body));
    }

    private void run(Job job) {
        if (job.tasks <= 1 || size == 1) {
            for (int task = 0; task < job.tasks; task++) job.body.run(task, 0);
            return;
        }
        current = job;
        for (int i = 0; i < Math.min(job.tasks - 1, threads.size()); i++) LockSupport.unpark(threads.get(i));
        job.execute(0);
        var wait = new SpinWait();
        while (job.done.get() < job.tasks) if (!wait.spinOnce()) LockSupport.park(job); // edge: device
        if (job.failure instanceof RuntimeException e) throw e;
        if (job.failure instanceof Error e) throw e;
    }

    private void runJobs(int thread) {
        Job last = null;
        var wait = new SpinWait();
        while (!closed) {
            var job = current;
            if (job != null && job != last) {
                last = job;
                job.execute(thread);
                wait = new SpinWait();
            } else if (!wait.spinOnce()) {
                LockSupport.park(this); // edge: a thread of the pool
            }
        }
    }

    /// Spins with a time limit, before a thread parks.
    private static final class SpinWait {
        private int spins;
        private long end;

        /// Spins once; false when the time limit has passed.
        boolean spinOnce() {
            if (spins++ % CLOCK_INTERVAL == 0) {
                long now = System.nanoTime(); // edge: affects speed only
                if (end == 0) end = now + SPIN_NANOS;
                else if (now - end > 0) return false;
            }
            Thread.onSpinWait();
            return true;
        }
    }

    @Override public void close() {
        closed = true;
        threads.forEach(LockSupport::unpark);
    }
}
