package bios.coordinator.simulation;

import com.typesafe.config.Config;
import java.util.List;
import java.util.concurrent.AbstractExecutorService;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import org.apache.pekko.dispatch.DispatcherPrerequisites;
import org.apache.pekko.dispatch.ExecutorServiceConfigurator;
import org.apache.pekko.dispatch.ExecutorServiceFactory;

/// The executor of all dispatchers of a simulated actor system: adds every task to the [EventLoop] that the
/// configuration of the dispatcher names.
public final class EventLoopExecutor extends ExecutorServiceConfigurator {
    private final String loop;

    /// Called by Pekko.
    public EventLoopExecutor(Config config, DispatcherPrerequisites prerequisites) {
        super(config, prerequisites);
        loop = config.getString("event-loop");
    }

    @Override public ExecutorServiceFactory createExecutorServiceFactory(String id, ThreadFactory threads) {
        return () -> on(EventLoop.of(loop));
    }

    /// An executor without threads, which adds tasks to `loop`.
    private static ExecutorService on(EventLoop loop) {
        return new AbstractExecutorService() {
            @Override public void execute(Runnable task) {
                loop.soon(task);
            }

            @Override public void shutdown() {}

            @Override public List<Runnable> shutdownNow() {
                return List.of();
            }

            @Override public boolean isShutdown() {
                return false;
            }

            @Override public boolean isTerminated() {
                return false;
            }

            @Override public boolean awaitTermination(long time, TimeUnit unit) {
                return true;
            }
        };
    }
}
