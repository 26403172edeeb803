package bios.bench;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.List;
import java.util.Map;
import java.util.OptionalDouble;

/// The table of times outside the engine's steps: a small step's round trip, and loading.
///
/// @param how how it is measured
/// @param small options of the runs of the small step
public record GatewayComparison(Comparison how, List<String> small) {
    private static final double SMALL_STEP_MILLIS = 10;

    /// Measures and prints it.
    public void run() {
        how.begin();
        smallStep();
        load();
    }

    private void smallStep() {
        String name = "small step, p50";
        if (!how.selects(name)) return;
        Runs runs = Runs.inTurn(how.rounds(), Map.of("ours", () -> how.ours("gateway", small)));
        double millis = runs.least("ours", "p50_ms");
        how.row(name, "ms", runs.leftOut("ours"), () -> new Row(name, "ms", millis, OptionalDouble.empty(),
                OptionalDouble.empty(),
                "at most 10 ms", OptionalDouble.empty(), millis <= SMALL_STEP_MILLIS, runs.of("ours")));
    }

    /// The ceiling is one plain read.
    private void load() {
        String name = "loading 1 GB";
        if (!how.selects(name, name + " cold", name + " warm")) return;
        List<String> arguments = List.of("--shape", Shape.QWEN_HALF_B.name(), "--steps", "" + how.steps());
        Runs runs = Runs.inTurn(1, Map.of("ours", () -> how.ours("load", arguments)));
        if (!runs.leftOut("ours").isEmpty()) how.row(Row.without(name, "s", runs.leftOut("ours")));
        for (JsonNode run : runs.reports("ours"))
            for (String state : List.of("cold", "warm")) {
                if (!run.has(state + "_load_s")) continue;
                double load = run.path(state + "_load_s").asDouble();
                double read = run.path(state + "_read_s").asDouble();
                how.row(new Row(name + " " + state, "s", load, OptionalDouble.empty(),
                        OptionalDouble.of(load / read), "bounded by reading once (%.2f s)".formatted(read),
                        OptionalDouble.of(read), load <= 1.1 * read, runs.of("ours")));
            }
    }
}
