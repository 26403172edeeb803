package bios.coordinator.simulation;

/// A deliberate mistake in what surrounds the real code, which the oracle must catch, and what it then says.
enum Mutation {
    NONE("nothing"),
    /// An engine that was given a run again leaves out one operation.
    ENGINE_LOSES_AN_OPERATION_OF_A_REPLAY("of another state"),
    /// An engine that was given a run again executes one operation twice.
    ENGINE_REPEATS_AN_OPERATION_OF_A_REPLAY("of another state"),
    /// An engine swaps operations that wait.
    ENGINE_SWAPS_OPERATIONS("instead of"),
    /// A save is made from the state one operation later.
    SAVE_IS_TAKEN_LATE("saves another state"),
    /// A recovery point is made from the state one operation earlier.
    POINT_IS_TAKEN_EARLY("of another state"),
    /// No recovery point ever succeeds.
    POINT_NEVER_COMES("does not rest"),
    /// Results depend on the node.
    RESULT_DEPENDS_ON_THE_NODE("instead of"),
    /// Operations are acknowledged when they arrive.
    ACKNOWLEDGED_BEFORE_STORED("which the journal does not hold"),
    /// A repeated submission gets another answer.
    REPEATED_SUBMISSION_IS_ANSWERED_ANEW("answers"),
    /// A failure that was told becomes a success.
    FAILURE_BECOMES_SUCCESS("failed and has a result"),
    /// The journal acknowledges what it did not keep.
    JOURNAL_FORGETS_A_WRITE("which the journal does not hold"),
    /// The journal does not read the last event.
    JOURNAL_LOSES_ITS_TAIL("accepts"),
    /// The journal accepts the same number from two writers.
    JOURNAL_HAS_NO_FENCE("two writers"),
    /// The journal does not read attempts: an operation that kills is tried for ever.
    JOURNAL_LOSES_ATTEMPTS("has killed"),
    /// A delete takes a blob with it that is referred to.
    STORE_DELETES_TOO_MUCH("which is referred to"),
    /// What was put is lost.
    STORE_LOSES_A_BLOB("does not exist");

    private final String shows;

    Mutation(String shows) {
        this.shows = shows;
    }

    /// Words of the violation that it leads to.
    String shows() {
        return shows;
    }
}
