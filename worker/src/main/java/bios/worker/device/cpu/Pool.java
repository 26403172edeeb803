package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;

/// A fixed number of platform threads that execute numbered tasks; the caller is thread 0. Each thread
/// executes the tasks of its own part from the front, so that it reads memory in order, and takes the last
/// task of another part when its own is done. Which thread executes a task is not determined: a result may
/// depend on the task's number alone.
final class Pool implements AutoCloseable {
    /// One task. `member` (0 to size - 1) is the number of the executing thread, and so of its workspace.
    interface Task {
        void run(int task, int member);
    }

    private static final class Job {
        final int tasks;
        final Task body;
        final Thread caller = Thread.currentThread();
        /// For each thread's part, or one part for all: the first task not yet taken in the lower half, the
        /// end of those not yet taken in the upper half.
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

        /// Takes a task; -1 when all are taken.
        private int take(int member) {
            int count = parts.length() / LINE;
            for (int i = 0; i < count; i++) {
                int at = (member + i) % count * LINE;
                for (long part; (int) (part = parts.get(at)) < (int) (part >>> 32); ) {
                    long rest = i == 0 ? part + 1 : part - (1L << 32);
                    if (parts.compareAndSet(at, part, rest))
                        return i == 0 ? (int) part : (int) (rest >>> 32);
                }
            }
            return -1;
        }

        void work(int member) {
            for (int task; (task = take(member)) >= 0; ) {
                try {
                    body.run(task, member);
                } catch (Throwable t) {
                    failure = t;
                }
                if (done.incrementAndGet() == tasks) LockSupport.unpark(caller);
            }
        }
    }

    /// Longs of a cache line: parts of two members do not share one.
    private static final int LINE = 8;
    /// Looks for the next job so long before it sleeps: jobs of a pass follow one another within less, and
    /// waking a thread that sleeps takes longer than many a job.
    private static final long PATIENCE_NANOS = 50_000;
    /// Looks between two looks at the clock.
    private static final int GLANCES = 16;

    /// About 5 µs of products or of moving elements: in a pass the others are awake.
    static final long WORTH_WAKING = 1 << 18;

    /// Rows of a matrix are taken together up to about this many elements.
    private static final int GRAIN = 1 << 14;

    private final List<Thread> members = new ArrayList<>();
    private final int size;
    private volatile Job current;
    private volatile boolean closed;

    Pool(int size) {
        require(size >= 1, "a pool of %d threads", size);
        this.size = size;
        for (int i = 1; i < size; i++) {
            int member = i;
            members.add(Thread.ofPlatform().daemon().name("device-" + member).start(() -> serve(member)));
        }
    }

    int size() {
        return size;
    }

    /// As [#run(int, Task)]; on the caller's thread alone if `operations` in all are so few that waking
    /// another thread would cost more.
    void run(int tasks, long operations, Task body) {
        if (operations >= WORTH_WAKING) run(tasks, body);
        else for (int task = 0; task < tasks; task++) body.run(task, 0);
    }

    /// Runs a task for each row of a matrix, several rows of few columns at a time; on the caller's thread
    /// alone if there is little to do.
    ///
    /// @param cost operations of one element, roughly
    void rows(int rows, int columns, int cost, Task body) {
        int each = Math.max(1, GRAIN / Math.max(1, columns));
        run((rows + each - 1) / each, (long) cost * rows * columns, (task, member) -> {
            int end = Math.min(rows, (task + 1) * each);
            for (int row = task * each; row < end; row++) body.run(row, member);
        });
    }

    /// Runs tasks 0 to `tasks` - 1 and waits for all. Rethrows a failure after the rest has ended.
    void run(int tasks, Task body) {
        run(new Job(tasks, size, body));
    }

    /// The same, where whoever is free takes the first task that nobody took: what they read comes from a
    /// file that is read in order.
    void runInOrder(int tasks, Task body) {
        run(new Job(tasks, 1, body));
    }

    private void run(Job job) {
        if (job.tasks <= 1 || size == 1) {
            for (int task = 0; task < job.tasks; task++) job.body.run(task, 0);
            return;
        }
        current = job;
        for (int i = 0; i < Math.min(job.tasks - 1, members.size()); i++) LockSupport.unpark(members.get(i));
        job.work(0);
        var patience = new Patience();
        while (job.done.get() < job.tasks) if (!patience.lasts()) LockSupport.park(job); // edge: device
        if (job.failure instanceof RuntimeException e) throw e;
        if (job.failure instanceof Error e) throw e;
    }

    private void serve(int member) {
        Job last = null;
        var patience = new Patience();
        while (!closed) {
            var job = current;
            if (job != null && job != last) {
                last = job;
                job.work(member);
                patience = new Patience();
            } else if (!patience.lasts()) {
                LockSupport.park(this); // edge: a thread of the pool
            }
        }
    }

    /// How long a thread goes on looking.
    private static final class Patience {
        private int glances;
        private long end;

        /// True, after a moment, until it is over.
        boolean lasts() {
            if (glances++ % GLANCES == 0) {
                long now = System.nanoTime(); // edge: how long to look decides nothing but speed
                if (end == 0) end = now + PATIENCE_NANOS;
                else if (now - end > 0) return false;
            }
            Thread.onSpinWait();
            return true;
        }
    }

    @Override public void close() {
        closed = true;
        members.forEach(LockSupport::unpark);
    }
}
