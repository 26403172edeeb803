package bios.coordinator;

import java.time.Duration;
import org.apache.pekko.actor.typed.ActorSystem;

/// The deletion of leftovers in a store that belong to no entity, from time to time, on a virtual thread. Any
/// number of nodes may sweep the same store; what one deletion leaves, the next one finds again.
public final class PeriodicSweep {
    private PeriodicSweep() {}

    /// Sweeps until the system terminates. A sweep that throws is logged.
    ///
    /// @param first the wait before the first sweep
    /// @param every the wait between two sweeps
    /// @param what is deleted, in the plural, for the log
    /// @param sweep blocks
    public static void start(ActorSystem<?> system, Duration first, Duration every, String what,
            Runnable sweep) {
        system.scheduler().scheduleWithFixedDelay(first, every, () ->
                Thread.ofVirtual().name("bios-sweep").start(() -> {
                    try {
                        sweep.run();
                    } catch (RuntimeException failed) {
                        system.log().warn("{} cannot be deleted now; tried again in {}: {}", what, every,
                                failed.toString());
                    }
                }), system.executionContext());
    }
}
