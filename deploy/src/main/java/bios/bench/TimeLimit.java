package bios.bench;

import bios.CommandFailed;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/// The time limit of one measurement: one run of the engine, of the peer, or of a client script. A
/// measurement that takes longer is ended and left out.
public record TimeLimit(Duration each) {
    public TimeLimit {
        if (each.isNegative() || each.isZero()) throw new CommandFailed("--limit: at least 1 second");
    }

    /// A limit in seconds.
    public static TimeLimit seconds(long seconds) {
        return new TimeLimit(Duration.ofSeconds(seconds));
    }

    /// The limit of a measurement that takes this many times as long as others.
    public TimeLimit times(int factor) {
        return new TimeLimit(each.multipliedBy(factor));
    }

    /// The limit as text.
    String text() {
        return each.toMillis() % 1000 == 0 ? each.toSeconds() + " s" : each.toMillis() + " ms";
    }

    /// A measurement in this process.
    public interface Body<T, E extends Exception> {
        T run() throws E;
    }

    /// Runs a measurement on this thread. A computation of the engine cannot be interrupted: after the limit,
    /// `exceeded` is called with the reason on another thread, and is expected to end the process.
    public <T, E extends Exception> T guard(String what, Consumer<String> exceeded,
            Body<T, E> body) throws E {
        CountDownLatch finished = new CountDownLatch(1);
        Thread watchdog = Thread.ofPlatform().daemon().name("bench-limit").start(() -> {
            try {
                if (!finished.await(each.toMillis(), TimeUnit.MILLISECONDS))
                    exceeded.accept(reason(what));
            } catch (InterruptedException _) {
                Thread.currentThread().interrupt();
            }
        });
        try {
            return body.run();
        } finally {
            finished.countDown();
            join(watchdog);
        }
    }

    private static void join(Thread watchdog) {
        try {
            watchdog.join();
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
        }
    }

    /// The reason why a measurement is left out.
    String reason(String what) {
        return what + ": took longer than " + text() + " (--limit)";
    }
}
