package bios.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/// Several measurements taken in turn, some rounds of each, so that they see the same machine.
final class Runs {
    private final Map<String, List<JsonNode>> all = new LinkedHashMap<>();

    private Runs() {}

    /// Every measurement once a round.
    static Runs inTurn(int rounds, Map<String, Supplier<JsonNode>> measurements) {
        Runs runs = new Runs();
        for (int round = 0; round < rounds; round++)
            measurements.forEach((name, measurement) -> runs.all
                    .computeIfAbsent(name, _ -> new ArrayList<>()).add(measurement.get()));
        return runs;
    }

    /// The run of this name with the largest value: company makes a run slower, never faster.
    JsonNode best(String name, String field) {
        return all.get(name).stream().max(Comparator.comparingDouble(r -> r.path(field).asDouble()))
                .orElseThrow();
    }

    /// The smallest value among the runs of this name.
    double least(String name, String field) {
        return all.get(name).stream().mapToDouble(r -> r.path(field).asDouble()).min().orElseThrow();
    }

    /// The largest value among the runs of this name.
    double most(String name, String field) {
        return best(name, field).path(field).asDouble();
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
