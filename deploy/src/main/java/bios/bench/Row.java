package bios.bench;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Instant;
import java.util.List;
import java.util.Locale;
import java.util.OptionalDouble;

/// One row of a comparison: a quantity, Bios's value, the peer's, and the ceiling of the machine.
///
/// @param ratio the ratio that the goal refers to, if any
/// @param goal the goal as text
/// @param ceiling ceiling in the unit of `ours`
/// @param runs the reports that the numbers come from
/// @param leftOut why measurements are missing
record Row(String quantity, String unit, double ours, OptionalDouble peer, OptionalDouble ratio, String goal,
        OptionalDouble ceiling, boolean met, ArrayNode runs, List<String> leftOut) {
    private static final String FORMAT = "%-56s %9s %9s %7s %9s %6s  %-4s %s%n";

    /// A row with all its measurements.
    Row(String quantity, String unit, double ours, OptionalDouble peer, OptionalDouble ratio, String goal,
            OptionalDouble ceiling, boolean met, ArrayNode runs) {
        this(quantity, unit, ours, peer, ratio, goal, ceiling, met, runs, List.of());
    }

    /// A row without numbers, because its measurements were left out.
    static Row without(String quantity, String unit, List<String> leftOut) {
        return new Row(quantity, unit, Double.NaN, OptionalDouble.empty(), OptionalDouble.empty(), "",
                OptionalDouble.empty(), false, Report.JSON.createArrayNode(), leftOut);
    }

    /// The same row with these reasons for measurements that were left out.
    Row leavingOut(List<String> reasons) {
        return new Row(quantity, unit, ours, peer, ratio, goal, ceiling, met, runs, reasons);
    }

    private boolean measured() {
        return !Double.isNaN(ours);
    }

    /// ours / ceiling.
    OptionalDouble share() {
        return ceiling.isPresent() ? OptionalDouble.of(ours / ceiling.getAsDouble()) : ceiling;
    }

    static String header() {
        return FORMAT.formatted("quantity", "ours", "peer", "ratio", "ceiling", "share", "met", "goal");
    }

    /// The row as a line of the table.
    String text() {
        OptionalDouble percent = share().isPresent()
                ? OptionalDouble.of(100 * share().getAsDouble()) : OptionalDouble.empty();
        String name = unit.isEmpty() ? quantity : quantity + ", " + unit;
        String rest = leftOut.isEmpty() ? goal
                : goal + (goal.isEmpty() ? "" : "; ") + "left out: " + String.join("; ", leftOut);
        return FORMAT.formatted(name, number(OptionalDouble.of(ours)), number(peer),
                number("%.2f", ratio), number(ceiling), number("%.0f%%", percent),
                !measured() ? "-" : met ? "yes" : "no", rest);
    }

    private static String number(OptionalDouble value) {
        return number("%.1f", value);
    }

    private static String number(String format, OptionalDouble value) {
        return present(value) ? String.format(Locale.ROOT, format, value.getAsDouble()) : "";
    }

    private static boolean present(OptionalDouble value) {
        return value.isPresent() && !Double.isNaN(value.getAsDouble());
    }

    /// The row as JSON; `left_out` only if something was.
    ObjectNode json() {
        ObjectNode line = Report.JSON.createObjectNode().put("bench", "table")
                .put("time", Instant.now().toString()).put("quantity", quantity).put("unit", unit);
        if (measured()) line.put("ours", Report.two(ours));
        if (!leftOut.isEmpty()) leftOut.forEach(line.putArray("left_out")::add);
        put(line, "peer", peer);
        put(line, "ratio", ratio);
        put(line, "ceiling", ceiling);
        put(line, "share", share());
        if (measured()) line.put("goal", goal).put("met", met);
        line.set("runs", runs);
        return line;
    }

    private static void put(ObjectNode line, String name, OptionalDouble value) {
        if (present(value)) line.put(name, Report.three(value.getAsDouble()));
    }
}
