package bios.coordinator.run;

import bios.coordinator.OwnerLimits;
import com.typesafe.config.Config;
import java.time.Duration;

/// The settings of `bios.run`; `reference.conf` documents each.
public record RunSettings(int shards, int maxUnfinished, long maxUnfinishedBytes, int maxUnfinishedPerOwner,
        long maxUnfinishedBytesPerOwner, int maxCheckpoints, int maxWaiting, int window, long windowBytes,
        int pointSteps, long pointBytes, int pointOperations, int pointMaxOperations, long pointMaxBytes,
        long snapshotBytes, int maxResults, long maxResultBytes, long resultMemoryBytes, long nodeResultBytes,
        int attempts, Duration idleAfter, Duration leaveWithin, Duration retryAfter, Duration restAfter,
        Duration sweepAfter, Duration lease, int newestSnapshots, int maxUnnamed, int history,
        boolean acceptLoss, OwnerLimits limits) {
    /// Most bytes of unfinished operations of an owner on this node.
    public long maxUnfinishedBytesOf(String owner) {
        long own = limits.of(owner).queuedBytes();
        return own > 0 ? own : maxUnfinishedBytesPerOwner;
    }

    /// How often a use that goes on is confirmed.
    public Duration leaseRenewal() {
        return lease.dividedBy(4);
    }

    /// Reads them from the root of a configuration.
    public static RunSettings from(Config root) {
        Config c = root.getConfig("bios.run");
        return new RunSettings(c.getInt("shards"), c.getInt("max-unfinished"),
                c.getBytes("max-unfinished-bytes"), c.getInt("max-unfinished-per-owner"),
                c.getBytes("max-unfinished-bytes-per-owner"), c.getInt("max-checkpoints"),
                c.getInt("max-waiting"), c.getInt("window"), c.getBytes("window-bytes"),
                c.getInt("recovery-point.steps"),
                c.getBytes("recovery-point.bytes"), c.getInt("recovery-point.operations"),
                c.getInt("recovery-point.max-operations"), c.getBytes("recovery-point.max-bytes"),
                c.getBytes("snapshot-bytes"), c.getInt("results.max-count"), c.getBytes("results.max-bytes"),
                c.getBytes("results.memory-bytes"), c.getBytes("results.node-bytes"),
                c.getInt("attempts"), c.getDuration("idle-after"), c.getDuration("leave-within"),
                c.getDuration("retry-after"), c.getDuration("rest-after"),
                c.getDuration("sweep-after"), c.getDuration("unnamed-weights.lease"),
                c.getInt("unnamed-weights.newest-snapshots"), c.getInt("unnamed-weights.max-count"),
                c.getInt("history"), c.getBoolean("accept-loss"),
                OwnerLimits.of(root.getConfig("bios.gateway.limits")));
    }
}
