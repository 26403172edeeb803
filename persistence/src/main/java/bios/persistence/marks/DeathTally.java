package bios.persistence.marks;

import bios.protocol.run.RunId;
import java.util.ArrayList;
import java.util.List;

/// Counts, for each operation, the consecutive ends of a worker's processes at which it was the only
/// operation that was being executed. An end at which an operation was not being executed ends its count:
/// processes that also end outside of an operation do not end because of it. Pure.
///
/// @param counts the operations that were being executed at the last end
record DeathTally(List<Count> counts) {
    static final DeathTally NONE = new DeathTally(List.of());

    /// An operation that was being executed when a process ended.
    ///
    /// @param company number of operations that were executed together with it, itself included
    record Mark(RunId run, long position, int company) {}

    /// @param alone number of consecutive ends at which only this operation was being executed
    record Count(RunId run, long position, int alone) {
        boolean counts(RunId other, long at) {
            return run.equals(other) && position == at;
        }
    }

    /// The tally after another end.
    ///
    /// @param marks what was being executed; empty: the process was starting, loading, recovering or idle
    DeathTally after(List<Mark> marks) {
        boolean alone = marks.size() == 1 && marks.getFirst().company() == 1;
        var next = new ArrayList<Count>();
        for (Mark mark : marks) {
            int before = counts.stream().filter(c -> c.counts(mark.run(), mark.position()))
                    .mapToInt(Count::alone).findFirst().orElse(0);
            next.add(new Count(mark.run(), mark.position(), alone ? before + 1 : before));
        }
        return new DeathTally(List.copyOf(next));
    }

    /// The operations of `before` whose count has ended.
    List<Count> ended(DeathTally before) {
        return before.counts.stream().filter(old -> counts.stream()
                .noneMatch(c -> c.counts(old.run(), old.position()))).toList();
    }
}
