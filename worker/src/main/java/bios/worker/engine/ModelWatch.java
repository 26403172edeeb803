package bios.worker.engine;

import bios.worker.device.DeviceLost;
import java.time.Duration;
import java.util.concurrent.RejectedExecutionException;
import java.util.function.Consumer;
import org.slf4j.Logger;

/// Checks the folders of the base models at an interval, on a thread of its own.
final class ModelWatch {
    private ModelWatch() {}

    /// The thread, not started; interrupt it to end it.
    ///
    /// @param changed is told what has changed
    /// @param broken is told that the device is lost
    static Thread create(ModelCatalog catalog, Duration interval, ModelCatalog.Loader loader,
            Consumer<ModelCatalog.Snapshot> changed, Consumer<DeviceLost> broken, Logger log) {
        return Thread.ofVirtual().name("models").unstarted(() -> {
            try {
                while (true) {
                    Thread.sleep(interval); // edge: the interval of looking at the disk
                    try {
                        catalog.look(loader).ifPresent(changed);
                    } catch (RejectedExecutionException _) {
                        return;
                    } catch (DeviceLost lost) {
                        broken.accept(lost);
                        return;
                    } catch (RuntimeException failed) {
                        log.warn("the model folders could not be looked at: {}", failed.toString());
                    }
                }
            } catch (InterruptedException _) {
                // The engine has stopped.
            }
        });
    }
}
