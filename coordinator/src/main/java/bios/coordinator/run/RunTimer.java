package bios.coordinator.run;

/// A timer of a run. At most one timer of each type runs at a time: starting it again replaces it.
sealed interface RunTimer {
    /// The delay before the run is opened in the engine again is over.
    record Reopen(long epoch) implements RunTimer {}

    /// The delay before another run is asked again for the checkpoint of the load at `position` is over.
    ///
    /// @param attempt number of the next attempt, from 1
    record ResolveAgain(long epoch, long position, int attempt) implements RunTimer {}

    /// The delay before another attempt at the suspected operation at `position` is over.
    record Attempt(long epoch, long position) implements RunTimer {}

    /// Nothing was accepted or executed for `bios.run.rest-after`.
    ///
    /// @param accepted number of operations that were accepted when it started
    record IdlePoint(long accepted) implements RunTimer {}

    /// The delay before another recovery point is over.
    record RetryRecoveryPoint() implements RunTimer {}

    /// The delay before another deletion of blobs is over.
    record RetryDeletion() implements RunTimer {}

    /// The time limit for leaving the node is over.
    record LeaveDeadline() implements RunTimer {}

    /// The idle time without a command is over.
    record Idle() implements RunTimer {}
}
