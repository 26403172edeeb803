package bios.protocol.client;

import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import org.apache.pekko.actor.ActorSystem;
import org.apache.pekko.event.EventStream;
import org.apache.pekko.event.LoggingFilter;

/// Lets one message a minute of each class of Pekko into the log: the transport logs every frame that it
/// cannot read, and a stranger can send many.
public final class TransportLogLimit implements LoggingFilter {
    private static final long MINUTE = 60_000_000_000L;
    /// Some callers ask once more before they log.
    private static final int QUESTIONS = 2;

    private final EventStream events;
    private final ConcurrentMap<String, Minute> minutes = new ConcurrentHashMap<>();

    private record Minute(long beganNanos, int asked) {}

    /// Called by Pekko, which finds the class by its name.
    public TransportLogLimit(ActorSystem.Settings settings, EventStream events) {
        this.events = events;
    }

    @Override public boolean isErrorEnabled(Class<?> logClass, String logSource) {
        return isEnabled(1, logClass);
    }

    @Override public boolean isWarningEnabled(Class<?> logClass, String logSource) {
        return isEnabled(2, logClass);
    }

    @Override public boolean isInfoEnabled(Class<?> logClass, String logSource) {
        return isEnabled(3, logClass);
    }

    @Override public boolean isDebugEnabled(Class<?> logClass, String logSource) {
        return isEnabled(4, logClass);
    }

    private boolean isEnabled(int level, Class<?> logClass) {
        if (events.logLevel() < level) return false;
        long now = System.nanoTime(); // edge: when to log again
        return minutes.compute(logClass.getName() + level, (_, before) ->
                before == null || now - before.beganNanos() > MINUTE ? new Minute(now, 1)
                        : new Minute(before.beganNanos(), Math.min(before.asked(), QUESTIONS) + 1))
                .asked() <= QUESTIONS;
    }
}
