package bios.coordinator.run;

import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.RunCommand.RunReply;
import java.util.concurrent.CompletionStage;

/// Asks the entity of another run for a checkpoint, and to keep it.
public interface CheckpointResolver extends WeightKeeper {
    /// Replies [RunReply.Resolved] or [RunReply.Refused]; the stage fails if the run did not answer.
    CompletionStage<RunReply> resolve(String owner, CheckpointPath path);
}
