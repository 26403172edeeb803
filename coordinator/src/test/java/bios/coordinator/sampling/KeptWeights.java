package bios.coordinator.sampling;

import bios.coordinator.run.WeightKeeper;
import bios.protocol.run.RunCommand.RunReply;
import java.util.concurrent.CompletableFuture;

/// Runs that keep all weights.
public final class KeptWeights {
    public static final WeightKeeper ALL = (_, _, _) ->
            CompletableFuture.completedStage(new RunReply.Done());

    private KeptWeights() {}
}
