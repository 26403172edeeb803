package bios.coordinator.owner;

import com.typesafe.config.Config;
import java.time.Duration;

/// The settings of `bios.owner`; `reference.conf` documents each.
public record OwnerSettings(int shards, int auditEntries, Duration countEvery, Duration idleAfter) {
    /// Reads them from the root of a configuration.
    public static OwnerSettings from(Config root) {
        Config c = root.getConfig("bios.owner");
        return new OwnerSettings(c.getInt("shards"), c.getInt("audit-entries"),
                c.getDuration("count-every"), c.getDuration("idle-after"));
    }
}
