package bios.coordinator.run;

/// A timer of a run. At most one of each type runs at a time: starting it again replaces it.
sealed interface RunTimer {
    /// The run may be opened in the engine again.
    record Reopen(long epoch) implements RunTimer {}

    /// Another run may be asked again for the checkpoint that the load at `position` names.
    ///
    /// @param attempt which time it will be asked, from 1
    record ResolveAgain(long epoch, long position, int attempt) implements RunTimer {}

    /// A recovery point may be tried again.
    record RetryRecoveryPoint() implements RunTimer {}

    /// Blobs may be deleted again.
    record RetryDeletion() implements RunTimer {}

    /// The time in which the run should have left its node is over.
    record LeaveDeadline() implements RunTimer {}

    /// The run has received no command for some time.
    record Idle() implements RunTimer {}
}
