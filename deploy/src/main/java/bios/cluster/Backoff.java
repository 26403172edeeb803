package bios.cluster;

/// The delay before a process that has ended is started again: it doubles while the process does not stay.
///
/// @param millis the delay, in milliseconds
record Backoff(long millis) {
    /// The delay after the first end.
    static final Backoff FIRST = new Backoff(500);
    private static final long MOST_MILLIS = 8_000;
    /// A process that ran longer than this has stayed.
    private static final long STABLE_MILLIS = 30_000;

    /// The delay after a process that ran for this many milliseconds.
    Backoff afterRunning(long ranMillis) {
        return ranMillis > STABLE_MILLIS ? FIRST : this;
    }

    /// The delay after the next end.
    Backoff grown() {
        return new Backoff(Math.min(MOST_MILLIS, 2 * millis));
    }
}
