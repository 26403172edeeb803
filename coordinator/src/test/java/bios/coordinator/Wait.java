package bios.coordinator;

import java.time.Duration;
import java.util.function.Supplier;

/// How tests wait for what has to happen: long enough for a machine that does much else, in one place.
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
            for (long began = System.nanoTime(); !condition.holds(); Thread.sleep(20))
                if (System.nanoTime() - began > LONGEST_NANOS) throw new AssertionError(otherwise.get());
        } catch (RuntimeException failed) {
            throw failed;
        } catch (Exception failed) {
            throw new AssertionError(failed);
        }
    }
}
