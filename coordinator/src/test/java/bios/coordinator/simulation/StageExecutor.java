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

/// The executor of all dispatchers of a simulated actor system: puts every task on the [Stage] whose name
/// its dispatcher's configuration gives.
public final class StageExecutor extends ExecutorServiceConfigurator {
    private final String stage;

    /// For Pekko.
    public StageExecutor(Config config, DispatcherPrerequisites prerequisites) {
        super(config, prerequisites);
        stage = config.getString("stage");
    }

    @Override public ExecutorServiceFactory createExecutorServiceFactory(String id, ThreadFactory threads) {
        return () -> on(Stage.of(stage));
    }

    /// An executor without threads.
    private static ExecutorService on(Stage stage) {
        return new AbstractExecutorService() {
            @Override public void execute(Runnable task) {
                stage.soon(task);
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
