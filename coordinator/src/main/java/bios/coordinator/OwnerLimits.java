package bios.coordinator;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigUtil;
import java.util.HashMap;
import java.util.Map;

/// What the accounts may use: `bios.gateway.limits`. An account that has a block of its own under `owners`
/// has the values of that block, and those of all accounts where the block has none.
///
/// @param defaults of an account without a block of its own
/// @param byOwner by account
public record OwnerLimits(Limit defaults, Map<String, Limit> byOwner) {
    private static final String OWNERS = "owners";

    /// The limits of one account; 0: no limit.
    ///
    /// @param runs runs that are not unloaded
    /// @param storedBytes bytes of checkpoints and states of runs
    /// @param queuedBytes bytes of unfinished operations on a node; 0: as `bios.run` says
    /// @param requestsPerSecond requests to one coordinator, on average
    /// @param burst requests that may come at once
    public record Limit(long runs, long storedBytes, long queuedBytes, double requestsPerSecond, int burst) {
        private static Limit of(Config block) {
            var limit = new Limit(block.getLong("runs"), block.getBytes("stored-bytes"),
                    block.getBytes("queued-bytes"), block.getDouble("requests-per-second"),
                    block.getInt("burst"));
            if (limit.runs < 0 || limit.requestsPerSecond < 0 || limit.burst < 1)
                throw new ConfigException.BadValue("bios.gateway.limits",
                        "a limit is negative, or burst is below 1");
            return limit;
        }
    }

    public OwnerLimits {
        byOwner = Map.copyOf(byOwner);
    }

    /// Reads the block `bios.gateway.limits`.
    public static OwnerLimits of(Config block) {
        var byOwner = new HashMap<String, Limit>();
        Config owners = block.getConfig(OWNERS);
        for (String owner : owners.root().keySet())
            byOwner.put(owner, Limit.of(owners.getConfig(ConfigUtil.quoteString(owner))
                    .withFallback(block)));
        return new OwnerLimits(Limit.of(block), byOwner);
    }

    /// The limits of an account.
    public Limit of(String owner) {
        return byOwner.getOrDefault(owner, defaults);
    }
}
