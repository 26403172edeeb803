package bios.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.MissingNode;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import java.util.stream.Stream;

/// Several measurements in alternating rounds, so that they run under the same conditions. One that exceeds
/// its time limit is left out, also of later rounds.
final class Runs {
    private final Map<String, List<JsonNode>> all = new LinkedHashMap<>();
    private final Map<String, String> leftOut = new LinkedHashMap<>();

    private Runs() {}

    /// Runs every measurement once in each round.
    static Runs inTurn(int rounds, Map<String, Supplier<JsonNode>> measurements) {
        Runs runs = new Runs();
        for (int round = 0; round < rounds; round++) measurements.forEach(runs::measure);
        return runs;
    }

    private void measure(String name, Supplier<JsonNode> measurement) {
        List<JsonNode> reports = all.computeIfAbsent(name, _ -> new ArrayList<>());
        if (leftOut.containsKey(name)) return;
        try {
            reports.add(measurement.get());
        } catch (LeftOut reason) {
            leftOut.put(name, reason.getMessage());
            reports.clear();
        }
    }

    /// The reasons why runs of these names are missing; empty if none is.
    List<String> leftOut(String... names) {
        return Stream.of(names).filter(leftOut::containsKey).map(leftOut::get).distinct().toList();
    }

    /// The run of this name with the largest value, because other processes make a run slower, never faster;
    /// a missing node if all are left out.
    JsonNode best(String name, String field) {
        return all.get(name).stream().max(Comparator.comparingDouble(r -> r.path(field).asDouble()))
                .orElse(MissingNode.getInstance());
    }

    /// The smallest value among the runs of this name; NaN if all are left out.
    double least(String name, String field) {
        return all.get(name).stream().mapToDouble(r -> r.path(field).asDouble()).min().orElse(Double.NaN);
    }

    /// The largest value among the runs of this name; NaN if all are left out.
    double most(String name, String field) {
        return best(name, field).path(field).asDouble(Double.NaN);
    }

    /// The same among the runs of several names.
    double mostOf(String field, String... names) {
        return Stream.of(names).mapToDouble(name -> most(name, field)).filter(x -> !Double.isNaN(x)).max()
                .orElse(Double.NaN);
    }

    /// All runs of these names.
    ArrayNode of(String... names) {
        ArrayNode some = Report.JSON.createArrayNode();
        for (String name : names) all.get(name).forEach(some::add);
        return some;
    }

    /// The reports of every run.
    List<JsonNode> reports(String name) {
        return all.get(name);
    }
}
