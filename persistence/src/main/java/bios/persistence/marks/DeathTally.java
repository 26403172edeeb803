package bios.persistence.marks;

import java.util.ArrayList;
import java.util.Comparator;
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

    /// An operation or a sampling request that was being executed when a process ended. An operation has a
    /// mark for each of its passes that a device has.
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

        Count ended(boolean byItself) {
            return new Count(name, position, alone + (byItself ? 1 : 0), ends + 1);
        }
    }

    /// The tally after another end. Of several operations of a run the first comes first: those behind it are
    /// executed again only when it is done.
    ///
    /// @param marks what was being executed; empty: the process was starting, loading, recovering or idle
    /// @param executed whether an operation has been executed to its end
    DeathTally after(List<Mark> marks, Predicate<Count> executed) {
        if (marks.isEmpty()) return NONE;
        List<Count> marked = marks.stream().map(mark -> counts.stream()
                .filter(c -> c.counts(mark.name(), mark.position())).findFirst()
                .orElse(new Count(mark.name(), mark.position(), 0, 0))).distinct()
                .sorted(Comparator.comparingLong(Count::position)).toList();
        boolean alone = marked.size() == 1 && marks.stream().allMatch(mark -> mark.company() == 1);
        var next = new ArrayList<>(marked.stream().map(count -> count.ended(alone)).toList());
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
