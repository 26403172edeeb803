package bios.worker.engine;

import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;

/// The one thread that speaks to a device. Takes calls in order; after [#stop] it finishes the call it is in,
/// drops the others, and ends. It is no daemon: the process waits until the device is closed.
final class DeviceThread {
    private final BlockingQueue<Runnable> calls = new LinkedBlockingQueue<>();
    private volatile boolean stopped;

    private DeviceThread() {}

    static DeviceThread start(String name) {
        var device = new DeviceThread();
        Thread.ofPlatform().name(name).daemon(false).start(device::work);
        return device;
    }

    /// Has `call` made; its result or whatever it throws comes back by the stage, on the device's thread.
    <T> CompletionStage<T> call(Callable<T> call) {
        var result = new CompletableFuture<T>();
        calls.add(() -> {
            if (stopped) return;
            try {
                result.complete(call.call());
            } catch (Throwable thrown) {
                result.completeExceptionally(thrown);
            }
        });
        return result;
    }

    /// Ends the thread behind the call that it is in and `last`.
    void stop(Runnable last) {
        stopped = true;
        calls.add(() -> {
            try {
                last.run();
            } finally {
                Thread.currentThread().interrupt();
            }
        });
    }

    private void work() {
        try {
            while (true) calls.take().run(); // edge: the device's own thread
        } catch (InterruptedException _) {
            // stopped
        }
    }
}
