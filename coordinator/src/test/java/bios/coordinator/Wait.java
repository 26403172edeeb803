package bios.coordinator;

import java.time.Duration;
import java.util.function.Supplier;

/// Waits in tests until a condition holds; the time limit is long enough for a busy machine.
public final class Wait {
    private static final long LONGEST_NANOS = Duration.ofMinutes(2).toNanos();

    private Wait() {}

    /// What a test waits for.
    @FunctionalInterface public interface Condition {
        boolean holds() throws Exception;
    }

    /// Waits until `condition` holds.
    ///
    /// @param otherwise says what is the case instead, after two minutes
    /// @throws AssertionError after two minutes, and if `condition` throws a checked exception
    public static void until(Condition condition, Supplier<String> otherwise) {
        try {
            long began = System.nanoTime();
            while (!condition.holds()) {
                if (System.nanoTime() - began > LONGEST_NANOS) throw new AssertionError(otherwise.get());
                Thread.sleep(20);
            }
        } catch (RuntimeException failed) {
            throw failed;
        } catch (Exception failed) {
            throw new AssertionError(failed);
        }
    }
}
