package bios.worker.engine;

import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.RejectedExecutionException;
import java.util.function.Consumer;

/// The one thread that calls the verbs of a device. It takes its work from a [DeviceQueue]; after [#stop] it
/// finishes the work that it is in, rejects the rest, and ends. It is no daemon: the process waits until the
/// device is closed, unless the device is lost.
final class DeviceThread {
    private final String name;
    private final DeviceQueue queue;
    private volatile boolean stopped;
    private volatile boolean lost;

    private DeviceThread(String name, DeviceQueue queue) {
        this.name = name;
        this.queue = queue;
    }

    /// Starts the thread.
    ///
    /// @param turns executes one turn, on the device's thread
    /// @param broken called once with the exception that a turn has thrown; the thread executes no more turns
    static DeviceThread start(String name, DeviceQueue queue, Consumer<DeviceQueue.Turn> turns,
            Consumer<Throwable> broken) {
        var device = new DeviceThread(name, queue);
        Thread.ofPlatform().name(name).daemon(false).start(() -> device.work(turns, broken));
        return device;
    }

    /// Calls `call` on the device's thread before the next turn. The result, or whatever it throws, completes
    /// the future there; [RejectedExecutionException] when the thread is stopped.
    <T> CompletableFuture<T> call(Callable<T> call) {
        var result = new CompletableFuture<T>();
        queue.add(() -> {
            if (stopped) {
                result.completeExceptionally(new RejectedExecutionException("the device is closed"));
                return;
            }
            try {
                result.complete(call.call());
            } catch (Throwable thrown) {
                checkLost(thrown);
                result.completeExceptionally(thrown);
            }
        });
        return result;
    }

    /// Calls `call` on the device's thread and waits. Only for virtual threads.
    <T> T await(Callable<T> call) throws Exception {
        try {
            return call(call).get(); // edge: a virtual thread waits for the device
        } catch (ExecutionException failed) {
            if (failed.getCause() instanceof Exception cause) throw cause;
            throw failed;
        }
    }

    private void checkLost(Throwable thrown) {
        if (FaultClassifier.deviceLost(thrown).isPresent()) lost();
    }

    /// Ends the thread after its current work and `last`. A lost device may block or throw: `last`
    /// then runs on a daemon thread, for which neither this thread nor the process waits.
    void stop(Runnable last) {
        stopped = true;
        queue.add(() -> {
            try {
                if (lost) Thread.ofPlatform().name(name + "-close").daemon(true).start(() -> closeLost(last));
                else last.run();
            } finally {
                Thread.currentThread().interrupt();
            }
        });
    }

    private static void closeLost(Runnable last) {
        try {
            last.run();
        } catch (RuntimeException _) {
            // A lost device cannot be closed; the process ends.
        }
    }

    /// Another thread has found out that the device is lost: takes no further turns.
    void lost() {
        lost = true;
        stopped = true;
    }

    private void work(Consumer<DeviceQueue.Turn> turns, Consumer<Throwable> broken) {
        try {
            while (true) switch (queue.take(stopped)) { // edge: the device's own thread
                case DeviceQueue.Work.Call(var call) -> call.run();
                case DeviceQueue.Turn turn -> execute(turn, turns, broken);
            }
        } catch (InterruptedException _) {
            // stopped
        } finally {
            queue.close().forEach(Runnable::run);
        }
    }

    private void execute(DeviceQueue.Turn turn, Consumer<DeviceQueue.Turn> turns,
            Consumer<Throwable> broken) {
        if (stopped) return;
        try {
            turns.accept(turn);
        } catch (Throwable thrown) {
            checkLost(thrown);
            stopped = true;
            broken.accept(thrown);
        }
    }
}
