package bios.coordinator.run;

import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import java.util.List;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import java.util.function.Predicate;

/// Wakes runs of which a checkpoint has expired. The timer of a run ends with its entity: while it is
/// passivated, only the run index knows. An entity that begins removes what has expired, and deletes its
/// blobs.
public final class ExpirySweep {
    private ExpirySweep() {}

    /// Wakes runs one after the other; blocks. One that does not answer is woken again by the next sweep.
    ///
    /// @param expired the runs that the index finds
    /// @param served whether a worker serves the base model of this slug: others have nowhere to begin
    /// @param ask sends a run any command, and returns its answer
    public static void wake(List<RunId> expired, Predicate<String> served,
            Function<RunId, CompletionStage<RunReply>> ask) {
        for (RunId run : expired) if (served.test(run.slug()))
            ask.apply(run).handle((_, _) -> run).toCompletableFuture()
                    .join(); // edge: a thread of its own waits
    }
}
