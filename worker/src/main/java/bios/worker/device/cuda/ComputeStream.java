package bios.worker.device.cuda;

import java.util.function.Supplier;
import jcuda.driver.CUgraphExec;

/// The stream of all verbs. While the device's thread captures a graph, what that thread launches is put on a
/// stream of its own, so that copies and fills of other threads are executed and are no part of the graph.
final class ComputeStream {
    private final CudaDriver driver;
    private final CudaStream own;
    private final CudaStream captured;
    private volatile Thread capturing;

    ComputeStream(CudaDriver driver, CudaStream own) {
        this.driver = driver;
        this.own = own;
        captured = driver.stream();
    }

    /// Where this thread puts its work.
    CudaStream current() {
        return capturing() ? captured : own;
    }

    /// Whether this thread captures a graph: nothing is executed.
    boolean capturing() {
        return capturing == Thread.currentThread();
    }

    /// What `work` launches as a graph, and what it returns.
    <T> Captured<T> capture(Supplier<T> work) {
        driver.beginCapture(captured);
        capturing = Thread.currentThread();
        T result;
        try {
            result = work.get();
        } catch (Throwable failed) {
            capturing = null;
            driver.abandonCapture(captured);
            throw failed;
        }
        capturing = null;
        return new Captured<>(driver.endCapture(captured), result);
    }

    /// A graph and what its capture returned.
    record Captured<T>(CUgraphExec graph, T result) {}

    /// Destroys both streams.
    void close() {
        driver.destroy(own);
        driver.destroy(captured);
    }
}
