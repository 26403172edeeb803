package bios.coordinator.sampling;

import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;

/// Is told of every sampling request that a router has finished with a result.
@FunctionalInterface
public interface SampleMeter {
    /// Counts nothing.
    SampleMeter NONE = (_, _, _) -> { };

    /// Counts a request; must not block.
    void finished(String owner, SampleTask task, SampleResult result);
}
