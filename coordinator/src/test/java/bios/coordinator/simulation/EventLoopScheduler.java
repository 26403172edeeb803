package bios.coordinator.simulation;

import com.typesafe.config.Config;
import java.util.concurrent.ThreadFactory;
import org.apache.pekko.actor.AbstractScheduler;
import org.apache.pekko.actor.Cancellable;
import org.apache.pekko.event.LoggingAdapter;
import scala.concurrent.ExecutionContext;
import scala.concurrent.duration.FiniteDuration;

/// The scheduler of a simulated actor system, with the time of its [EventLoop].
public final class EventLoopScheduler extends AbstractScheduler {
    private final EventLoop loop;

    /// Called by Pekko.
    public EventLoopScheduler(Config config, LoggingAdapter log, ThreadFactory threads) {
        loop = EventLoop.of(config.getString("bios.simulation.event-loop"));
    }

    @Override public Cancellable scheduleOnce(FiniteDuration delay, Runnable task,
            ExecutionContext executor) {
        return cancellable(loop.in(Math.max(1, delay.toMillis()), () -> executor.execute(task)));
    }

    /// Subclasses must implement the deprecated method.
    @Deprecated @Override public Cancellable schedule(FiniteDuration initial, FiniteDuration interval,
            Runnable task, ExecutionContext executor) {
        var repeated = new Repeated(interval.toMillis(), task, executor);
        repeated.next = loop.in(Math.max(1, initial.toMillis()), repeated);
        return repeated;
    }

    @Override public double maxFrequency() {
        return 1000;
    }

    private static Cancellable cancellable(EventLoop.Later later) {
        return new Cancellable() {
            @Override public boolean cancel() {
                return later.cancel();
            }

            @Override public boolean isCancelled() {
                return later.over();
            }
        };
    }

    private final class Repeated implements Cancellable, Runnable {
        private final long interval;
        private final Runnable task;
        private final ExecutionContext executor;
        private EventLoop.Later next;
        private boolean cancelled;

        Repeated(long interval, Runnable task, ExecutionContext executor) {
            this.interval = interval;
            this.task = task;
            this.executor = executor;
        }

        @Override public void run() {
            if (cancelled) return;
            executor.execute(task);
            next = loop.in(Math.max(1, interval), this);
        }

        @Override public boolean cancel() {
            boolean was = !cancelled;
            cancelled = true;
            next.cancel();
            return was;
        }

        @Override public boolean isCancelled() {
            return cancelled;
        }
    }
}
