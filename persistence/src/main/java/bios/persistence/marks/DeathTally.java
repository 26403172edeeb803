package bios.persistence.marks;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;

/// Counts, for each operation and each sampling request, the ends of a worker's processes at which it was
/// being executed, and those at which nothing else was. A process that ends while nothing is being executed
/// ends all counts: processes that also end outside of operations do not end because of one. An operation
/// that was executed to its end is not counted any more. Pure.
///
/// @param counts the counted operations and requests, those of the last end first
record DeathTally(List<Count> counts) {
    static final DeathTally NONE = new DeathTally(List.of());

    /// An operation or a sampling request that was being executed when a process ended.
    ///
    /// @param name the run, or the request
    /// @param company number of those that were executed together with it, itself included
    record Mark(String name, long position, int company) {}

    /// @param name the run, or the request
    /// @param alone number of ends at which only this was being executed
    /// @param ends number of all ends at which it was being executed
    record Count(String name, long position, int alone, int ends) {
        boolean counts(String other, long at) {
            return name.equals(other) && position == at;
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
            Count before = counts.stream().filter(c -> c.counts(mark.name(), mark.position()))
                    .findFirst().orElse(new Count(mark.name(), mark.position(), 0, 0));
            next.add(new Count(mark.name(), mark.position(), before.alone() + (alone ? 1 : 0),
                    before.ends() + 1));
        }
        for (Count old : counts)
            if (marks.stream().noneMatch(m -> old.counts(m.name(), m.position())) && !executed.test(old))
                next.add(old);
        return new DeathTally(List.copyOf(next));
    }

    /// The operations of `before` whose count has ended.
    List<Count> ended(DeathTally before) {
        return before.counts.stream().filter(old -> counts.stream()
                .noneMatch(c -> c.counts(old.name(), old.position()))).toList();
    }
}
