package bios.coordinator.sampling;

import bios.protocol.sampling.SampleTask;

/// Is told of every sampling request that a router has finished with a result, and of those that were given
/// up after some of their tokens were handed out.
@FunctionalInterface
public interface SampleMeter {
    /// Counts nothing.
    SampleMeter NONE = (_, _, _) -> { };

    /// Counts a request; must not block.
    ///
    /// @param sampled tokens drawn, of all its sequences
    void finished(String owner, SampleTask task, long sampled);
}
