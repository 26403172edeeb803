package bios.persistence.marks;

import bios.protocol.run.RunId;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;

/// Counts, for each operation, the ends of a worker's processes at which it was the only operation that was
/// being executed. A process that ends while nothing is being executed ends all counts: processes that also
/// end outside of operations do not end because of one. An operation that was executed to its end is not
/// counted any more. Pure.
///
/// @param counts the counted operations, those of the last end first
record DeathTally(List<Count> counts) {
    static final DeathTally NONE = new DeathTally(List.of());

    /// An operation that was being executed when a process ended.
    ///
    /// @param company number of operations that were executed together with it, itself included
    record Mark(RunId run, long position, int company) {}

    /// @param alone number of ends at which only this operation was being executed
    record Count(RunId run, long position, int alone) {
        boolean counts(RunId other, long at) {
            return run.equals(other) && position == at;
        }
    }

    /// The tally after another end.
    ///
    /// @param marks what was being executed; empty: the process was starting, loading, recovering or idle
    /// @param executed whether an operation has been executed to its end
    DeathTally after(List<Mark> marks, Predicate<Count> executed) {
        if (marks.isEmpty()) return NONE;
        boolean alone = marks.size() == 1 && marks.getFirst().company() == 1;
        var next = new ArrayList<Count>();
        for (Mark mark : marks) {
            int before = counts.stream().filter(c -> c.counts(mark.run(), mark.position()))
                    .mapToInt(Count::alone).findFirst().orElse(0);
            next.add(new Count(mark.run(), mark.position(), alone ? before + 1 : before));
        }
        for (Count old : counts)
            if (marks.stream().noneMatch(m -> old.counts(m.run(), m.position())) && !executed.test(old))
                next.add(old);
        return new DeathTally(List.copyOf(next));
    }

    /// The operations of `before` whose count has ended.
    List<Count> ended(DeathTally before) {
        return before.counts.stream().filter(old -> counts.stream()
                .noneMatch(c -> c.counts(old.run(), old.position()))).toList();
    }
}
