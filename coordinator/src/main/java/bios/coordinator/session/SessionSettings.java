package bios.coordinator.session;

import com.typesafe.config.Config;
import java.time.Duration;

/// The settings of `bios.session`; `reference.conf` documents each.
public record SessionSettings(int shards, Duration endsAfter, Duration retryAfter, int maxRuns,
        int maxSamplers, int snapshotEvery) {
    /// Reads them from the root of a configuration.
    public static SessionSettings from(Config root) {
        Config c = root.getConfig("bios.session");
        return new SessionSettings(c.getInt("shards"), c.getDuration("ends-after"),
                c.getDuration("retry-after"), c.getInt("max-runs"),
                c.getInt("max-samplers"), c.getInt("snapshot-every"));
    }
}
