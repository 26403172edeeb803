package bios.bench;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Instant;
import java.util.Locale;
import java.util.OptionalDouble;

/// One line of a comparison: a quantity, ours, the peer's, and what the machine allows.
///
/// @param ratio what the goal speaks of, where that is a ratio
/// @param goal in words
/// @param ceiling in the unit of `ours`
/// @param runs the reports that the numbers come from
record Row(String quantity, String unit, double ours, OptionalDouble peer, OptionalDouble ratio, String goal,
        OptionalDouble ceiling, boolean met, ArrayNode runs) {
    private static final String FORMAT = "%-56s %9s %9s %7s %9s %6s  %-4s %s%n";

    /// ours / ceiling.
    OptionalDouble share() {
        return ceiling.isPresent() ? OptionalDouble.of(ours / ceiling.getAsDouble()) : ceiling;
    }

    static String header() {
        return FORMAT.formatted("quantity", "ours", "peer", "ratio", "ceiling", "share", "met", "goal");
    }

    /// A line of the table.
    String text() {
        OptionalDouble percent = share().isPresent()
                ? OptionalDouble.of(100 * share().getAsDouble()) : OptionalDouble.empty();
        String name = unit.isEmpty() ? quantity : quantity + ", " + unit;
        return FORMAT.formatted(name, number(OptionalDouble.of(ours)), number(peer),
                number("%.2f", ratio), number(ceiling), number("%.0f%%", percent),
                met ? "yes" : "no", goal);
    }

    private static String number(OptionalDouble value) {
        return number("%.1f", value);
    }

    private static String number(String format, OptionalDouble value) {
        return value.isPresent() ? String.format(Locale.ROOT, format, value.getAsDouble()) : "";
    }

    /// The same for files.
    ObjectNode json() {
        ObjectNode line = Report.JSON.createObjectNode().put("bench", "table")
                .put("time", Instant.now().toString()).put("quantity", quantity).put("unit", unit)
                .put("ours", Report.two(ours));
        put(line, "peer", peer);
        put(line, "ratio", ratio);
        put(line, "ceiling", ceiling);
        put(line, "share", share());
        line.put("goal", goal).put("met", met).set("runs", runs);
        return line;
    }

    private static void put(ObjectNode line, String name, OptionalDouble value) {
        if (value.isPresent()) line.put(name, Report.three(value.getAsDouble()));
    }
}
