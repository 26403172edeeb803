package bios.coordinator.run;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.wire.Message;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// A message that the entity of a run sends to itself: the outcome of work on another thread, a timer, or an
/// action that needs its own message because events can be persisted only while a message is handled.
sealed interface SelfMessage extends Message {
    /// An input of [RunScheduler].
    record Step(RunInput input) implements SelfMessage {}

    /// The blobs of the run were listed before its recovery.
    ///
    /// @param event the newest event that their names prove; 0: none, or they could not be listed
    record Proven(long event) implements SelfMessage {}

    /// Persist [RunEvent.EntityBegan].
    record Begin() implements SelfMessage {}

    /// A timer of the run has elapsed.
    record TimerElapsed(RunTimer timer) implements SelfMessage {}

    /// The results of all runs exceed the node's memory limit: free results.
    record Shrink() implements SelfMessage {}

    /// A page of results was read in search of `seq`.
    ///
    /// @param searched the pages that were searched
    record PageRead(long seq, Optional<FinishedOperation> found, List<FinishedOperation> page,
            List<ResultsPage> searched, Optional<String> failure) implements SelfMessage {}

    /// The delay before another read of a page has elapsed.
    record RetryPages() implements SelfMessage {}

    /// The write of `version` to the index has ended.
    record Indexed(long version, Optional<String> failure) implements SelfMessage {}

    /// The delay before the next write of the index has elapsed.
    record IndexAgain() implements SelfMessage {}

    /// The wait time of a client has elapsed.
    record WaitTimedOut(long seq, long waiter) implements SelfMessage {}

    /// The wait time of a follower has elapsed.
    record FollowTimedOut(long follower) implements SelfMessage {}

    /// Send an outcome to a client that has waited for it.
    record Answer(FinishedOperation outcome, ActorRef<RunReply> replyTo) implements SelfMessage {}

    /// Check for expired checkpoints.
    record Expire() implements SelfMessage {}

    /// Messages about weights that are in use, and about blobs without an owner.
    sealed interface Upkeep extends SelfMessage {}

    /// Release the weights that nobody uses.
    record ReleaseWeights() implements Upkeep {}

    /// Ask other runs to keep what this one has loaded from them.
    record KeepForeign() implements Upkeep {}

    /// Another run was asked to keep what this one has loaded.
    ///
    /// @param answered whether it has answered
    record ForeignKept(boolean answered) implements Upkeep {}

    /// Look for blobs without an owner.
    record Sweep() implements Upkeep {}

    /// The store has listed the blobs of the run.
    record Listed(List<BlobId> blobs, Optional<String> failure) implements Upkeep {}

    /// Add these entries to the history.
    record RecordHistory(List<HistoryEntry> entries) implements SelfMessage {}

    /// Stop the entity now.
    record Stop() implements SelfMessage {}
}
