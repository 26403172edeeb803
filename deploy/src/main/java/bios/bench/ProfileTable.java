package bios.bench;

import com.fasterxml.jackson.databind.node.ArrayNode;
import java.util.List;

/// The time of a step by operation of the device.
final class ProfileTable {
    private ProfileTable() {}

    /// Adds the profile of these steps to a report.
    ///
    /// @param flopsPerSecond upper limit of products
    /// @param bytesPerSecond upper limit of reading memory
    static void add(Report report, List<Profiler.Line> lines, List<Double> steps, double flopsPerSecond,
            double bytesPerSecond) {
        double whole = steps.stream().mapToDouble(Double::doubleValue).sum();
        double named = 0;
        ArrayNode profile = report.line().putArray("profile");
        for (Profiler.Line line : lines) {
            named += line.seconds();
            boolean product = line.flops() > 0;
            double work = product ? line.flops() : line.bytes();
            double share = work / line.seconds() / (product ? flopsPerSecond : bytesPerSecond);
            profile.addObject().put("operation", line.verb())
                    .put("ms", Report.round(line.seconds() * 1e3 / steps.size()))
                    .put("time", Report.three(line.seconds() / whole))
                    .put("calls", line.calls() / steps.size())
                    .put(product ? "gflops" : "gb_s", Report.round(work / line.seconds() / 1e9))
                    .put("share", Report.three(share));
        }
        profile.addObject().put("operation", "(outside the device)")
                .put("ms", Report.round((whole - named) * 1e3 / steps.size()))
                .put("time", Report.three((whole - named) / whole));
    }

    /// The profile of a report's line as a table.
    static String text(ArrayNode profile) {
        StringBuilder text = new StringBuilder("%-28s %10s %7s %8s %16s %9s%n"
                .formatted("operation", "ms a step", "time", "calls", "rate", "of limit"));
        profile.forEach(line -> {
            String rate = line.has("gflops") ? line.get("gflops").asDouble() + " GFLOP/s"
                    : line.path("gb_s").asDouble() > 0 ? line.get("gb_s").asDouble() + " GB/s" : "";
            text.append("%-28s %10.1f %6.1f%% %8s %16s %9s%n".formatted(line.get("operation").asText(),
                    line.get("ms").asDouble(), 100 * line.get("time").asDouble(),
                    line.path("calls").asText(), rate,
                    rate.isEmpty() ? "" : "%.0f%%".formatted(100 * line.get("share").asDouble())));
        });
        return text.toString();
    }
}
