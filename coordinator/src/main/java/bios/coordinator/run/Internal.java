package bios.coordinator.run;

import bios.coordinator.run.Results.Kept;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunNote;
import bios.protocol.wire.Message;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// What the entity of a run tells itself. An `epoch` is that of the engine's copy which it is about: what
/// comes for an earlier one is not heard ([EngineCopy]).
sealed interface Internal extends Message {
    /// What was recovered is all there is.
    record Begin() implements Internal {}

    /// Go on with the line.
    record Advance() implements Internal {}

    /// Store these, which the line needs before it goes on.
    record Store(long epoch, List<RunEvent> events) implements Internal {}

    /// The engine says this of the run.
    record FromEngine(long epoch, EngineEvent event) implements Internal {}

    /// The engine has stopped.
    record EngineGone() implements Internal {}

    /// The run may be opened again.
    record Reopen(long epoch) implements Internal {}

    /// The load at `position` loads this.
    record LoadFound(long epoch, long position, boolean optimizer, CheckpointManifest manifest)
            implements Internal {}

    /// The load at `position` has nothing to load.
    record LoadFailed(long epoch, long position, Fault why) implements Internal {}

    /// Nobody could say what the load at `position` loads: ask once more after a while.
    record ResolveLater(long epoch, long position, int attempt) implements Internal {}

    /// Ask now.
    record ResolveAgain(long epoch, long position, int attempt) implements Internal {}

    /// The results before a recovery point are in the store.
    ///
    /// @param results all pages that are kept, oldest first
    record PointKept(long epoch, EngineEvent.RecoveryPointWritten point, List<ResultsPage> results)
            implements Internal {}

    /// They are not.
    record PointLost(long epoch, String why) implements Internal {}

    /// A recovery point may be tried again.
    record PointsAgain() implements Internal {}

    /// These blobs are deleted.
    record Freed(List<BlobId> blobs) implements Internal {}

    /// Some blob could not be deleted.
    record NotFreed(String why) implements Internal {}

    /// They may be deleted now.
    record FreeAgain() implements Internal {}

    /// The results of all runs take too much of the node's memory.
    record Shrink() implements Internal {}

    /// The store may give a page of results now.
    record PagesAgain() implements Internal {}

    /// A page of results was read in search of `seq`.
    ///
    /// @param among the pages that were looked through
    record PageRead(long seq, Optional<Kept> found, List<Kept> page, List<ResultsPage> among,
            Optional<String> failure) implements Internal {}

    /// The index shows the run as it was at `version`, or does not.
    record Indexed(long version, Optional<String> failure) implements Internal {}

    /// A waiter has waited long enough.
    record WaitOver(long seq, long waiter) implements Internal {}

    /// Answer one who has waited.
    record Answer(Kept kept, ActorRef<RunReply> replyTo) implements Internal {}

    /// Nobody has asked for a while.
    record Idle() implements Internal {}

    /// A checkpoint may have expired.
    record Expire() implements Internal {}

    /// Keep this in the history.
    record Note(List<RunNote> notes) implements Internal {}

    /// Unload the run if nothing is in work.
    record Close() implements Internal {}

    /// End now, whatever the engine still does.
    record Left() implements Internal {}
}
