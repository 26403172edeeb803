package bios.worker.device.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import org.junit.jupiter.api.Test;

final class PoolTest {
    @Test void everyTaskRunsOnceForAnyNumberOfThreads() {
        for (int size : new int[] {1, 2, 3, 7})
            try (var pool = new Pool(size)) {
                for (int tasks : new int[] {0, 1, 2, 3, 6, 100, 1000})
                    for (boolean inOrder : new boolean[] {false, true}) {
                        var runs = new AtomicIntegerArray(tasks);
                        Pool.Task body = (task, thread) -> {
                            assertTrue(thread >= 0 && thread < size);
                            runs.incrementAndGet(task);
                        };
                        if (inOrder) pool.runInOrder(tasks, body);
                        else pool.run(tasks, body);
                        for (int i = 0; i < tasks; i++) assertEquals(1, runs.get(i));
                    }
            }
    }

    /// The first task ends after all others, so another thread has to execute the other tasks of its part.
    @Test void tasksOfABlockedThreadAreStolenByOthers() {
        try (var pool = new Pool(2)) {
            for (boolean inOrder : new boolean[] {false, true}) {
                var others = new CountDownLatch(9);
                Pool.Task body = (task, _) -> {
                    if (task > 0) others.countDown();
                    else await(others);
                };
                if (inOrder) pool.runInOrder(10, body);
                else pool.run(10, body);
                assertEquals(0, others.getCount());
            }
        }
    }

    @Test void eachThreadExecutesTasksInOrder() {
        try (var pool = new Pool(2)) {
            int[] last = {-1, -1};
            pool.runInOrder(1000, (task, thread) -> {
                assertTrue(task > last[thread]);
                last[thread] = task;
            });
        }
    }

    @Test void aFailureIsRethrownAfterTheOtherTasks() {
        try (var pool = new Pool(2)) {
            var runs = new AtomicInteger();
            assertThrows(IllegalStateException.class, () -> pool.run(100, (task, _) -> {
                runs.incrementAndGet();
                if (task == 50) throw new IllegalStateException("as asked");
            }));
            assertEquals(100, runs.get());
        }
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
