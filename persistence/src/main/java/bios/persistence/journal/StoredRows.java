package bios.persistence.journal;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The rows of one entity in the embedded journal.
///
/// @param deletedTo events up to it were deleted
/// @param replaced whether a snapshot replaces the deleted events
/// @param events in order, without those that are marked as deleted
/// @param snapshots the newest first
/// @param failure why not all rows could be read
public record StoredRows(String persistenceId, long deletedTo, boolean replaced, List<Row> events,
        List<Row> snapshots, Optional<String> failure) {
    /// A stored event or snapshot.
    ///
    /// @param intact whether its checksum is right; rows of earlier builds have none and count as intact
    public record Row(long number, int serializer, String manifest, byte[] bytes, boolean intact) {}

    public StoredRows {
        events = List.copyOf(events);
        snapshots = List.copyOf(snapshots);
    }

    /// What is wrong with the rows, apart from their contents: a sentence for each problem.
    ///
    /// @param head the newest acknowledged event that the journal should have
    public List<String> problems(long head) {
        var found = new ArrayList<String>();
        failure.ifPresent(found::add);
        for (Row row : snapshots)
            if (!row.intact()) found.add("the snapshot at event " + row.number() + " is damaged");
        if (replaced && snapshots.stream().noneMatch(row -> row.number() >= deletedTo))
            found.add("the snapshot that replaces the events up to " + deletedTo + " is missing");
        long next = first();
        for (Row row : events) {
            if (row.number() < next) continue;
            if (row.number() > next) found.add(missing(next, row.number() - 1));
            if (!row.intact()) found.add("event " + row.number() + " is damaged");
            next = row.number() + 1;
        }
        if (next <= head) found.add(missing(next, head));
        return found;
    }

    /// The first event that has to be there. An earlier build that used the folder later deleted more,
    /// because of a snapshot.
    private long first() {
        long first = events.isEmpty() ? deletedTo + 1 : Math.max(deletedTo + 1, events.getFirst().number());
        return snapshots.stream().anyMatch(row -> row.intact() && row.number() >= first - 1)
                ? first : deletedTo + 1;
    }

    private static String missing(long from, long to) {
        return from == to ? "event " + from + " is missing" : "events " + from + " to " + to + " are missing";
    }
}
