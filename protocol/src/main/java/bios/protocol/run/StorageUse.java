package bios.protocol.run;

import bios.protocol.checkpoint.CheckpointManifest;
import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.TreeMap;

/// The named checkpoints of a run by the hour: how many were saved, and for how long their bytes were stored.
/// It is told of every change before it happens; until the next one the checkpoints are what they are.
///
/// @param untilMillis what was stored up to then is in `hours`, epoch milliseconds
/// @param hours the newest hours in which something was stored, oldest first
public record StorageUse(long untilMillis, List<Hour> hours) {
    /// Nothing was told yet. What is stored counts from when it was saved.
    public static final StorageUse NONE = new StorageUse(0, List.of());
    private static final long HOUR_MILLIS = 3_600_000;

    /// One hour.
    ///
    /// @param hour number of the hour since the epoch
    /// @param saved checkpoints
    /// @param byteHours bytes times the part of the hour in which they were stored
    public record Hour(@JsonProperty("h") long hour, @JsonProperty("c") long saved,
            @JsonProperty("b") double byteHours) {
        private Hour plus(long moreSaved, double moreByteHours) {
            return new Hour(hour, saved + moreSaved, byteHours + moreByteHours);
        }
    }

    public StorageUse {
        hours = List.copyOf(hours);
    }

    /// With what is stored until a time.
    ///
    /// @param stored what was stored since `untilMillis`, or since it was saved
    public StorageUse until(long atMillis, Collection<CheckpointManifest> stored) {
        var byHour = byHour();
        for (CheckpointManifest each : stored) {
            long from = Math.max(each.createdAtMillis(), untilMillis);
            long to = Math.min(atMillis, each.expiresAtMillis().orElse(Long.MAX_VALUE));
            // What is older than the hours that are kept would be dropped again.
            long at = Math.max(from, to - RunUsage.MOST_HOURS * HOUR_MILLIS);
            while (at < to) {
                long hour = Math.floorDiv(at, HOUR_MILLIS);
                long next = Math.min(to, (hour + 1) * HOUR_MILLIS);
                add(byHour, hour, 0, each.bytes() * ((next - at) / (double) HOUR_MILLIS));
                at = next;
            }
        }
        return of(Math.max(untilMillis, atMillis), byHour);
    }

    /// With a checkpoint that was saved.
    public StorageUse saved(long atMillis) {
        var byHour = byHour();
        add(byHour, Math.floorDiv(atMillis, HOUR_MILLIS), 1, 0);
        return of(untilMillis, byHour);
    }

    private TreeMap<Long, Hour> byHour() {
        var all = new TreeMap<Long, Hour>();
        hours.forEach(hour -> all.put(hour.hour(), hour));
        return all;
    }

    private static void add(TreeMap<Long, Hour> byHour, long hour, long saved, double byteHours) {
        byHour.put(hour, Optional.ofNullable(byHour.get(hour)).orElse(new Hour(hour, 0, 0))
                .plus(saved, byteHours));
    }

    private static StorageUse of(long until, TreeMap<Long, Hour> byHour) {
        var all = new ArrayList<>(byHour.values());
        return new StorageUse(until, all.subList(Math.max(0, all.size() - RunUsage.MOST_HOURS), all.size()));
    }
}
