package bios.coordinator.run;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.run.RunCommand.RunReply;
import java.util.concurrent.CompletionStage;

/// Tells the entity of a run that weights of it are in use: it keeps them for another lease.
@FunctionalInterface
public interface WeightKeeper {
    /// Replies [RunReply.Done] or [RunReply.Refused]; the stage fails if the run did not answer.
    ///
    /// @param loaded whether another run has loaded them and may have to load them again
    CompletionStage<RunReply> keepWeights(String owner, BlobId adapter, boolean loaded);
}
