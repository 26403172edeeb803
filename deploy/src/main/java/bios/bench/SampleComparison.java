package bios.bench;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.function.Supplier;

/// The table of sampling.
///
/// @param how how it is measured
public record SampleComparison(Comparison how) {
    private static final String UNIT = "tokens/s";
    private static final int STREAMS = 16;
    private static final int ADAPTERS = 4;
    private static final int TOKENS = 48;
    private static final int PREFILL = 1024;
    private static final int RANK = 32;

    /// Measures and prints it.
    public void run() {
        how.begin();
        try (Comparison.Models models = new Comparison.Models()) {
            of(Shape.LLAMA_110M, models);
            of(Shape.QWEN_HALF_B, models);
        }
    }

    private void of(Shape shape, Comparison.Models models) {
        String[] names = {"decode %s 1 stream".formatted(shape.name()),
                "decode %s %d streams, %d adapters".formatted(shape.name(), STREAMS, ADAPTERS),
                "sampler equals trainer " + shape.name(),
                "prefill %s 1x%d".formatted(shape.name(), PREFILL)};
        if (!how.selects(names)) return;
        Map<String, Supplier<JsonNode>> turns = new LinkedHashMap<>();
        turns.put("ours", () -> ours(shape, models));
        turns.put("peer one", () -> peer(shape, 1));
        turns.put("peer many", () -> peer(shape, STREAMS));
        Runs runs = Runs.inTurn(how.rounds(), turns);
        oneStream(names[0], runs);
        manyStreams(names[1], runs);
        boolean equal = runs.reports("ours").stream()
                .allMatch(r -> r.path("sampler_equals_trainer").asBoolean());
        how.row(names[2], "", runs.leftOut("ours"), () -> new Row(names[2], "", equal ? 1 : 0,
                OptionalDouble.empty(),
                OptionalDouble.empty(), "log-probabilities bit-equal", OptionalDouble.empty(), equal,
                runs.of("ours")));
        prefill(names[3], runs);
    }

    private JsonNode ours(Shape shape, Comparison.Models models) {
        List<String> arguments = new ArrayList<>(models.options(shape, true));
        arguments.addAll(List.of("--streams", "" + STREAMS, "--adapters", "" + ADAPTERS, "--tokens",
                "" + TOKENS, "--prefill", "" + PREFILL, "--rank", "" + RANK, "--steps", "" + how.steps()));
        return how.ours("sample", arguments);
    }

    private JsonNode peer(Shape shape, int streams) {
        List<String> arguments = new ArrayList<>(List.of("--steps", "1", "--batch", "1", "--seq", "32",
                "--sample", "" + TOKENS, "--sample-batch", "" + streams));
        if (streams == 1) arguments.addAll(List.of("--prefill", "" + PREFILL));
        return how.peer().run(shape, true, RANK, arguments);
    }

    private void oneStream(String name, Runs runs) {
        double ours = runs.most("ours", "one_stream_tok_s");
        double peer = runs.most("peer one", "decode_tok_s");
        double ceiling = runs.most("ours", "ceiling_one_stream_tok_s");
        how.row(name, UNIT, runs.leftOut("ours"), () -> new Row(name, UNIT, ours, OptionalDouble.of(peer),
                OptionalDouble.of(ours / peer), "60% of read bandwidth / bytes of weights",
                OptionalDouble.of(ceiling), ours >= 0.6 * ceiling, runs.of("ours", "peer one"))
                .leavingOut(runs.leftOut("peer one")));
    }

    private void manyStreams(String name, Runs runs) {
        JsonNode best = runs.best("ours", "ratio_to_one_stream");
        double ratio = best.path("ratio_to_one_stream").asDouble();
        how.row(name, UNIT, runs.leftOut("ours"), () -> new Row(name, UNIT,
                best.path("decode_tok_s").asDouble(),
                OptionalDouble.of(runs.most("peer many", "decode_tok_s")), OptionalDouble.of(ratio),
                "6x one stream", OptionalDouble.empty(), ratio >= 6, runs.of("ours", "peer many"))
                .leavingOut(runs.leftOut("peer many")));
    }

    private void prefill(String name, Runs runs) {
        double ours = runs.most("ours", "prefill_tok_s");
        double peer = runs.most("peer one", "prefill_tok_s");
        double ceiling = runs.most("ours", "prefill_ceiling_tok_s");
        how.row(name, UNIT, runs.leftOut("ours"), () -> new Row(name, UNIT, ours, OptionalDouble.of(peer),
                OptionalDouble.of(ours / peer), "70% of ceiling", OptionalDouble.of(ceiling),
                ours >= 0.7 * ceiling, runs.of("ours")).leavingOut(runs.leftOut("peer one")));
    }
}
