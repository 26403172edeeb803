package bios.coordinator.run;

import java.util.Arrays;

/// A set of numbers as intervals: `[bounds[0], bounds[1])`, `[bounds[2], bounds[3])`, ... in ascending order.
/// Numbers that mostly follow each other take a few bytes.
public record IntervalSet(long[] bounds) {
    /// The empty set.
    public static final IntervalSet EMPTY = new IntervalSet(new long[0]);

    /// Whether the set contains `number`.
    public boolean contains(long number) {
        // A bound at an even index starts an interval; an odd insertion point is inside an interval.
        int at = Arrays.binarySearch(bounds, number);
        return at >= 0 ? at % 2 == 0 : -(at + 1) % 2 == 1;
    }

    /// The set with `number` added.
    public IntervalSet with(long number) {
        if (contains(number)) return this;
        int at = Arrays.binarySearch(bounds, number);
        int insert = at >= 0 ? at : -(at + 1);
        boolean endsHere = at >= 0; // the interval [.., number) is extended
        int next = endsHere ? at + 1 : insert;
        boolean beginsNext = next < bounds.length && bounds[next] == number + 1;
        if (endsHere && beginsNext) return removed(at, 2);
        long[] changed = bounds.clone();
        if (endsHere) changed[at] = number + 1;
        else if (beginsNext) changed[next] = number;
        else {
            changed = new long[bounds.length + 2];
            System.arraycopy(bounds, 0, changed, 0, insert);
            changed[insert] = number;
            changed[insert + 1] = number + 1;
            System.arraycopy(bounds, insert, changed, insert + 2, bounds.length - insert);
        }
        return new IntervalSet(changed);
    }

    /// The set without `number`.
    public IntervalSet without(long number) {
        return contains(number) ? after(number).union(before(number)) : this;
    }

    /// The numbers of the set that are greater than `number`.
    public IntervalSet after(long number) {
        int at = Arrays.binarySearch(bounds, number + 1);
        int first = at >= 0 ? at : -(at + 1);
        if (first % 2 == 0) return new IntervalSet(Arrays.copyOfRange(bounds, first, bounds.length));
        // `number + 1` is inside an interval or ends one.
        if (at >= 0) return new IntervalSet(Arrays.copyOfRange(bounds, first + 1, bounds.length));
        long[] rest = Arrays.copyOfRange(bounds, first - 1, bounds.length);
        rest[0] = number + 1;
        return new IntervalSet(rest);
    }

    private IntervalSet before(long number) {
        int at = Arrays.binarySearch(bounds, number);
        int first = at >= 0 ? at : -(at + 1);
        if (first % 2 == 0) return new IntervalSet(Arrays.copyOf(bounds, first));
        long[] rest = Arrays.copyOf(bounds, first + 1);
        rest[first] = number;
        return new IntervalSet(rest);
    }

    /// @param lower a set whose numbers are all less than those of this set
    private IntervalSet union(IntervalSet lower) {
        long[] all = Arrays.copyOf(lower.bounds, lower.bounds.length + bounds.length);
        System.arraycopy(bounds, 0, all, lower.bounds.length, bounds.length);
        return new IntervalSet(all);
    }

    /// Whether the set contains all numbers from `first` to `last`, both included.
    public boolean containsAll(long first, long last) {
        if (first > last) return true;
        int at = Arrays.binarySearch(bounds, first);
        int interval = at >= 0 ? at : -(at + 1) - 1;
        return interval >= 0 && interval % 2 == 0 && last < bounds[interval + 1];
    }

    /// The greatest number up to which the set contains all numbers from `first` on; `first - 1`: not even
    /// that one.
    public long through(long first) {
        int at = Arrays.binarySearch(bounds, first);
        int interval = at >= 0 ? at : -(at + 1) - 1;
        return interval >= 0 && interval % 2 == 0 ? bounds[interval + 1] - 1 : first - 1;
    }

    /// Whether the set is empty.
    public boolean none() {
        return bounds.length == 0;
    }

    private IntervalSet removed(int from, int count) {
        long[] changed = new long[bounds.length - count];
        System.arraycopy(bounds, 0, changed, 0, from);
        System.arraycopy(bounds, from + count, changed, from, changed.length - from);
        return new IntervalSet(changed);
    }

    @Override public boolean equals(Object other) {
        return other instanceof IntervalSet(var b) && Arrays.equals(b, bounds);
    }

    @Override public int hashCode() {
        return Arrays.hashCode(bounds);
    }
}
