package bios.coordinator.run;

import java.util.Arrays;

/// A set of numbers as intervals: `[bounds[0], bounds[1])`, `[bounds[2], bounds[3])`, ... in ascending order.
/// Numbers that mostly follow each other take a few bytes for ever.
public record NumberSet(long[] bounds) {
    /// No number.
    public static final NumberSet EMPTY = new NumberSet(new long[0]);

    /// Whether `number` is in it.
    public boolean contains(long number) {
        // A bound found at an even index begins an interval; an odd insertion point is inside one.
        int at = Arrays.binarySearch(bounds, number);
        return at >= 0 ? at % 2 == 0 : -(at + 1) % 2 == 1;
    }

    /// This and `number`.
    public NumberSet with(long number) {
        if (contains(number)) return this;
        int at = Arrays.binarySearch(bounds, number);
        int insert = at >= 0 ? at : -(at + 1);
        boolean endsHere = at >= 0; // an interval [.., number) can grow
        int next = endsHere ? at + 1 : insert;
        boolean beginsNext = next < bounds.length && bounds[next] == number + 1;
        if (endsHere && beginsNext) return without(at, 2);
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
        return new NumberSet(changed);
    }

    private NumberSet without(int from, int count) {
        long[] changed = new long[bounds.length - count];
        System.arraycopy(bounds, 0, changed, 0, from);
        System.arraycopy(bounds, from + count, changed, from, changed.length - from);
        return new NumberSet(changed);
    }

    @Override public boolean equals(Object other) {
        return other instanceof NumberSet(var b) && Arrays.equals(b, bounds);
    }

    @Override public int hashCode() {
        return Arrays.hashCode(bounds);
    }
}
