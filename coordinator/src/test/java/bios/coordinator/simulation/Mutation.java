package bios.coordinator.simulation;

/// A deliberate error in a model around the real code, with the violation that the oracle must report.
enum Mutation {
    NONE("nothing"),
    /// An engine that opens a run again omits one operation.
    ENGINE_LOSES_AN_OPERATION_OF_A_REPLAY("of another state"),
    /// An engine that opens a run again executes one operation twice.
    ENGINE_REPEATS_AN_OPERATION_OF_A_REPLAY("of another state"),
    /// An engine reorders waiting operations.
    ENGINE_SWAPS_OPERATIONS("instead of"),
    /// An engine keeps the rest of a batch that it has to drop.
    ENGINE_KEEPS_THE_REST_OF_A_BATCH("instead of"),
    /// A save is made from the state one operation later.
    SAVE_IS_TAKEN_LATE("saves another state"),
    /// A recovery point is made from the state one operation earlier.
    POINT_IS_TAKEN_EARLY("of another state"),
    /// Every recovery point fails.
    POINT_NEVER_COMES("does not rest"),
    /// Results depend on the node.
    RESULT_DEPENDS_ON_THE_NODE("instead of"),
    /// Operations are acknowledged when they arrive.
    ACKNOWLEDGED_BEFORE_STORED("which the journal does not hold"),
    /// A repeated submission gets a different reply.
    REPEATED_SUBMISSION_IS_ANSWERED_ANEW("answers"),
    /// A reported failure becomes a success.
    FAILURE_BECOMES_SUCCESS("failed and has a result"),
    /// The journal acknowledges a write that it does not store.
    JOURNAL_FORGETS_A_WRITE("which the journal does not hold"),
    /// The journal does not read the last event.
    JOURNAL_LOSES_ITS_TAIL("accepts"),
    /// The journal accepts the same number from two writers.
    JOURNAL_HAS_NO_FENCE("two writers"),
    /// A deletion also removes a blob that is still referenced.
    STORE_DELETES_TOO_MUCH("which is referred to"),
    /// The store keeps what it says to have deleted.
    STORE_DELETES_NOTHING("which nothing refers to"),
    /// The store lists no blobs.
    LISTING_IS_EMPTY("which nothing refers to"),
    /// A submission that comes long after its blob was written says that it does not.
    SUBMISSION_HIDES_ITS_AGE("which is referred to"),
    /// The entities end leases early.
    LEASES_ARE_SHORT("which is in use"),
    /// The entities keep snapshots that are older than the newest ones and not in use.
    LEASES_DO_NOT_END("does not rest"),
    /// Runs do not say what they have loaded from others.
    LOADS_ARE_NOT_TOLD("which is referred to"),
    /// A stored blob is lost.
    STORE_LOSES_A_BLOB("does not exist");

    private final String shows;

    Mutation(String shows) {
        this.shows = shows;
    }

    /// A part of the expected violation message.
    String shows() {
        return shows;
    }
}
