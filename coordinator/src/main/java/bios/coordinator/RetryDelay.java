package bios.coordinator;

import java.time.Duration;

/// The delay before another attempt: it grows fourfold from attempt to attempt, up to a minute.
///
/// @param first the delay before the second attempt
public record RetryDelay(Duration first) {
    private static final Duration LONGEST = Duration.ofMinutes(1);

    /// The delay after this many failed attempts.
    ///
    /// @param failed at least 1
    public Duration after(int failed) {
        Duration grown = first.multipliedBy(1L << Math.min(20, 2 * (failed - 1)));
        return grown.compareTo(LONGEST) < 0 ? grown : LONGEST;
    }
}
