package bios.protocol.run;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.ArrayList;
import java.util.List;

/// What the operations of a run have used, each counted once however often it was executed.
///
/// @param position operations up to it are counted
/// @param trainedTokens positions of sequences in `forward_backward`
/// @param evaluatedTokens positions of sequences in `forward`
/// @param deviceNanos time of the device; of a pass that runs share, the whole pass
/// @param hours the newest hours in which something was used, oldest first
public record RunUsage(long position, long trainedTokens, long evaluatedTokens, long deviceNanos,
        List<Hour> hours) {
    /// Nothing.
    public static final RunUsage NONE = new RunUsage(0, 0, 0, 0, List.of());
    /// So many hours are kept: two weeks.
    public static final int MOST_HOURS = 14 * 24 + 1;
    private static final long HOUR_MILLIS = 3_600_000;

    /// What was used in one hour.
    ///
    /// @param hour number of the hour since the epoch
    public record Hour(@JsonProperty("h") long hour, @JsonProperty("t") long trainedTokens,
            @JsonProperty("e") long evaluatedTokens, @JsonProperty("d") long deviceNanos) {}

    public RunUsage {
        hours = List.copyOf(hours);
    }

    /// With the operations up to `upTo` that are not counted yet.
    ///
    /// @param atMillis in the hour of which they are counted, epoch milliseconds
    public RunUsage plus(long upTo, long trained, long evaluated, long nanos, long atMillis) {
        var more = new ArrayList<>(hours);
        long now = Math.floorDiv(atMillis, HOUR_MILLIS);
        // A clock that was set back does not open an earlier hour again.
        if (!more.isEmpty() && more.getLast().hour() >= now) {
            Hour last = more.removeLast();
            more.add(new Hour(last.hour(), last.trainedTokens() + trained, last.evaluatedTokens() + evaluated,
                    last.deviceNanos() + nanos));
        } else {
            more.add(new Hour(now, trained, evaluated, nanos));
        }
        return new RunUsage(upTo, trainedTokens + trained, evaluatedTokens + evaluated, deviceNanos + nanos,
                more.subList(Math.max(0, more.size() - MOST_HOURS), more.size()));
    }

    /// Whether nothing was used.
    public boolean none() {
        return trainedTokens == 0 && evaluatedTokens == 0 && deviceNanos == 0;
    }
}
