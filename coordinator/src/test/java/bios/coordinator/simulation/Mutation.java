package bios.coordinator.simulation;

/// A deliberate mistake in what surrounds the real code: the oracle must catch each of them.
enum Mutation {
    NONE,
    /// An engine that was given a run again leaves out one operation.
    ENGINE_LOSES_AN_OPERATION_OF_A_REPLAY,
    /// An engine that was given a run again executes one operation twice.
    ENGINE_REPEATS_AN_OPERATION_OF_A_REPLAY,
    /// An engine swaps operations that wait.
    ENGINE_SWAPS_OPERATIONS,
    /// A save is made from the state one operation later.
    SAVE_IS_TAKEN_LATE,
    /// A recovery point is made from the state one operation later.
    POINT_IS_TAKEN_LATE,
    /// No recovery point ever succeeds.
    POINT_NEVER_COMES,
    /// Results depend on the node.
    RESULT_DEPENDS_ON_THE_NODE,
    /// Operations are acknowledged when they arrive.
    ACKNOWLEDGED_BEFORE_STORED,
    /// A repeated submission gets another answer.
    REPEATED_SUBMISSION_IS_ANSWERED_ANEW,
    /// A failure that was told becomes a success.
    FAILURE_BECOMES_SUCCESS,
    /// The journal acknowledges what it did not keep.
    JOURNAL_FORGETS_A_WRITE,
    /// The journal does not read the last event.
    JOURNAL_LOSES_ITS_TAIL,
    /// The journal lets two writers have the same number.
    JOURNAL_HAS_NO_FENCE,
    /// The journal does not read attempts: an operation that kills is tried for ever.
    JOURNAL_LOSES_ATTEMPTS,
    /// A delete takes a blob with it that is referred to.
    STORE_DELETES_TOO_MUCH,
    /// A deleted blob stays, but what was put is lost.
    STORE_LOSES_A_BLOB
}
