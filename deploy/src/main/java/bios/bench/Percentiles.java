package bios.bench;

import java.util.Arrays;
import java.util.Collection;

/// Measurements in ascending order.
record Percentiles(double[] sorted) {
    static Percentiles of(Collection<Double> values) {
        double[] sorted = values.stream().mapToDouble(Double::doubleValue).toArray();
        Arrays.sort(sorted);
        return new Percentiles(sorted);
    }

    /// The smallest value that at least `percent` of all do not exceed (nearest rank).
    double at(double percent) {
        int rank = (int) Math.ceil(percent / 100 * sorted.length);
        return sorted[Math.clamp(rank - 1, 0, sorted.length - 1)];
    }

    double median() {
        return at(50);
    }
}
