package bios.coordinator.run;

import bios.protocol.run.HistoryEntry;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.wire.Message;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// A message that the entity of a run sends to itself: the answer to work on another thread, a timer, or
/// something that must be done in a turn of its own because only there events can be persisted.
sealed interface SelfMessage extends Message {
    /// For [RunScheduler].
    record Step(RunInput input) implements SelfMessage {}

    /// Persist that this entity answers for the run.
    record Begin() implements SelfMessage {}

    /// A timer of the run has elapsed.
    record TimerElapsed(RunTimer timer) implements SelfMessage {}

    /// The results of all runs take too much of the node's memory.
    record Shrink() implements SelfMessage {}

    /// A page of results was read in search of `seq`.
    ///
    /// @param among the pages that were searched
    record PageRead(long seq, Optional<FinishedOperation> found, List<FinishedOperation> page,
            List<ResultsPage> among, Optional<String> failure) implements SelfMessage {}

    /// The blob store may be asked for a page of results again.
    record RetryPages() implements SelfMessage {}

    /// The index shows the run as it was at `version`, or has failed to.
    record Indexed(long version, Optional<String> failure) implements SelfMessage {}

    /// The index may be written again.
    record IndexAgain() implements SelfMessage {}

    /// The time of a client that waits for a result is over.
    record WaitOver(long seq, long waiter) implements SelfMessage {}

    /// Give a client the outcome that it has waited for.
    record Answer(FinishedOperation outcome, ActorRef<RunReply> replyTo) implements SelfMessage {}

    /// A checkpoint may have expired.
    record Expire() implements SelfMessage {}

    /// Put these into the history.
    record RecordHistory(List<HistoryEntry> entries) implements SelfMessage {}

    /// End the entity now.
    record Stop() implements SelfMessage {}
}
