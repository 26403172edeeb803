package bios.bench;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.function.Supplier;

/// The table of training.
///
/// @param how how it is measured
public record TrainComparison(Comparison how) {
    private static final String RATE = "train_tok_s";
    private static final String BF16_LIMIT = "onednn_bf16_gflops";
    private static final String FP32_LIMIT = "onednn_fp32_gflops";
    private static final String UNIT = "tokens/s";
    private static final int RANK = 32;
    /// Each of these steps has thousands of tokens.
    private static final int MOST_LONG_STEPS = 2;
    /// Steps of a long sequence get this many times the time limit of other rows.
    private static final int LONG_TIMES = 3;
    private static final long SPARE_MEBIBYTES = 1536;
    private static final long LONG_MEBIBYTES = 4096;

    /// A batch that is measured in both dtypes.
    private record Case(Shape shape, int batch, int length) {
        String name(String rest) {
            return "train %s %dx%d %s".formatted(shape.name(), batch, length, rest);
        }
    }

    /// Measures and prints it.
    public void run() {
        how.begin();
        try (Comparison.Models models = new Comparison.Models()) {
            both(new Case(Shape.QWEN_HALF_B, 4, 256), models, false);
            both(new Case(Shape.LLAMA_110M, 8, 256), models, true);
            mixed(models);
            tenants(models);
            longSequence(models);
        }
    }

    private void both(Case which, Comparison.Models models, boolean busy) {
        String[] names = {which.name("bf16"), which.name("fp32"), which.name("peak RSS"),
                which.name("beside a busy process")};
        if (!how.selects(names)) return;
        Map<String, Supplier<JsonNode>> measurements = new LinkedHashMap<>();
        for (boolean bf16 : new boolean[] {true, false}) {
            String dtype = bf16 ? "bf16" : "fp32";
            measurements.put("ours " + dtype, () -> ours(which, models, bf16));
            measurements.put("peer " + dtype, () -> peer(which, bf16));
        }
        Runs runs = Runs.inTurn(how.rounds(), measurements);
        double peer = runs.mostOf(RATE, "peer bf16", "peer fp32");
        double fp32 = runs.mostOf(FP32_LIMIT, "ours bf16", "ours fp32");
        double bf16 = runs.most("ours bf16", BF16_LIMIT);
        double best = Double.isNaN(bf16) ? fp32 : Math.max(fp32, bf16);
        speed(names[0], peer, 2.2, 0.7, best, runs, "ours bf16", "peer bf16", "peer fp32");
        speed(names[1], runs.most("peer fp32", RATE), 1.6, 0, fp32, runs, "ours fp32", "peer fp32");
        memory(names[2], runs);
        if (busy && how.selects(names[3])) besideBusy(which, names[3], models, runs);
    }

    private JsonNode ours(Case which, Comparison.Models models, boolean bf16, String... more) {
        List<String> arguments = new ArrayList<>(models.options(which.shape, bf16));
        arguments.addAll(List.of("--batch", "" + which.batch, "--seq", "" + which.length, "--rank", "" + RANK,
                "--steps", "" + how.steps()));
        arguments.addAll(List.of(more));
        return how.ours("train", arguments);
    }

    private JsonNode peer(Case which, boolean bf16) {
        return how.peer().run(which.shape, bf16, RANK, List.of("--batch", "" + which.batch, "--seq",
                "" + which.length, "--steps", "" + how.steps()));
    }

    /// @param gigaflops rate of oneDNN's products, the best of all runs, as for the speeds
    /// @param used names of the runs, Bios's first
    private void speed(String name, double peer, double timesPeer, double shareOfCeiling, double gigaflops,
            Runs runs, String... used) {
        how.row(name, UNIT, runs.leftOut(used[0]), () -> speedRow(name, peer, timesPeer, shareOfCeiling,
                gigaflops, runs, used).leavingOut(runs.leftOut(used)));
    }

    private static Row speedRow(String name, double peer, double timesPeer, double shareOfCeiling,
            double gigaflops, Runs runs, String... used) {
        double rate = runs.most(used[0], RATE);
        double ceiling = runs.most(used[0], "tokens") * gigaflops / runs.most(used[0], "step_gflop");
        String goal = timesPeer + "x the peer" + (timesPeer > 2 ? "'s better dtype" : "'s fp32")
                + (shareOfCeiling > 0 ? ", %.0f%% of ceiling".formatted(100 * shareOfCeiling) : "");
        return new Row(name, UNIT, rate, OptionalDouble.of(peer), OptionalDouble.of(rate / peer), goal,
                OptionalDouble.of(ceiling), rate >= timesPeer * peer && rate >= shareOfCeiling * ceiling,
                runs.of(used));
    }

    private void memory(String name, Runs runs) {
        double ours = runs.most("ours bf16", "peak_rss_mb");
        double allowed = runs.most("ours bf16", "weights_mb") + SPARE_MEBIBYTES;
        how.row(name, "MiB", runs.leftOut("ours bf16"), () -> new Row(name, "MiB", ours,
                OptionalDouble.of(runs.most("peer bf16", "peak_rss_mb")), OptionalDouble.empty(),
                "at most weights + 1.5 GiB = %.0f".formatted(allowed), OptionalDouble.empty(),
                ours <= allowed, Report.JSON.createArrayNode()).leavingOut(runs.leftOut("peer bf16")));
    }

    /// The speed beside a busy process as a share of the speed alone; Bios must keep at least the peer's
    /// share.
    private void besideBusy(Case which, String name, Comparison.Models models, Runs alone) {
        // the rate of a peer that is left out is NaN, so the comparison is false
        boolean peerBf16 = !alone.leftOut("peer fp32").isEmpty()
                || alone.most("peer bf16", RATE) >= alone.most("peer fp32", RATE);
        Map<String, Supplier<JsonNode>> measurements = new LinkedHashMap<>();
        measurements.put("ours", () -> ours(which, models, true, "--busy"));
        measurements.put("peer", () -> {
            try (BusyProcess _ = BusyProcess.start()) {
                return peer(which, peerBf16);
            }
        });
        String peerAlone = peerBf16 ? "peer bf16" : "peer fp32";
        List<String> missing = new ArrayList<>(alone.leftOut("ours bf16", peerAlone));
        Runs busy = missing.isEmpty() ? Runs.inTurn(how.rounds(), measurements) : alone;
        if (missing.isEmpty()) missing.addAll(busy.leftOut("ours", "peer"));
        how.row(name, UNIT, missing, () -> besideBusyRow(name, busy, alone, peerAlone));
    }

    private static Row besideBusyRow(String name, Runs busy, Runs alone, String peerAlone) {
        double ours = busy.most("ours", RATE);
        double peer = busy.most("peer", RATE);
        double oursKept = ours / alone.most("ours bf16", RATE);
        double peerKept = peer / alone.most(peerAlone, RATE);
        return new Row(name, UNIT, ours, OptionalDouble.of(peer), OptionalDouble.of(oursKept / peerKept),
                "keeps %.0f%% of its speed, the peer %.0f%%".formatted(100 * oursKept, 100 * peerKept),
                OptionalDouble.empty(), oursKept >= peerKept, busy.of("ours", "peer"));
    }

    private void mixed(Comparison.Models models) {
        beside("train llama-110m mixed lengths", models, "0.9 of equal lengths", 0.9, "--mixed");
    }

    private void tenants(Comparison.Models models) {
        beside("train llama-110m 8 tenants x 1x256", models, "0.85 of one tenant", 0.85,
                "--tenants", "8", "--seq", "256");
    }

    private void beside(String name, Comparison.Models models, String goal, double least, String... which) {
        if (!how.selects(name)) return;
        Runs runs = besides(how.limit(), models, which);
        JsonNode best = runs.best("ours", "ratio_to_beside");
        double ratio = best.path("ratio_to_beside").asDouble();
        how.row(name, UNIT, runs.leftOut("ours"), () -> new Row(name, UNIT, best.path(RATE).asDouble(),
                OptionalDouble.empty(),
                OptionalDouble.of(ratio), goal, OptionalDouble.of(best.path("ceiling_tok_s").asDouble()),
                ratio >= least, runs.of("ours")));
    }

    private Runs besides(TimeLimit limit, Comparison.Models models, String... which) {
        List<String> arguments = new ArrayList<>(models.options(Shape.LLAMA_110M, true));
        arguments.addAll(List.of("--rank", "" + RANK, "--steps",
                "" + Math.min(how.steps(), MOST_LONG_STEPS)));
        arguments.addAll(List.of(which));
        return Runs.inTurn(1, Map.of("ours", () -> how.ours("train", limit, arguments)));
    }

    private void longSequence(Comparison.Models models) {
        String name = "train llama-110m 1x8192";
        String memory = name + " peak RSS";
        if (!how.selects(name, memory)) return;
        Runs runs = besides(how.limit().times(LONG_TIMES), models, "--batch", "1", "--seq", "8192",
                "--beside", "8x1024");
        List<String> leftOut = runs.leftOut("ours");
        JsonNode run = runs.best("ours", RATE);
        double ratio = run.path("ratio_to_beside").asDouble();
        double byWork = run.path("ratio_by_work").asDouble();
        how.row(name, UNIT, leftOut, () -> new Row(name, UNIT, run.path(RATE).asDouble(),
                OptionalDouble.empty(),
                OptionalDouble.of(ratio), "%.2f of 8x1024: attention's share of operations (of time: %.2f)"
                        .formatted(byWork, run.path("ratio_by_time").asDouble()),
                OptionalDouble.of(run.path("ceiling_tok_s").asDouble()), ratio >= byWork, runs.of("ours")));
        double peak = run.path("peak_rss_mb").asDouble();
        how.row(memory, "MiB", leftOut, () -> new Row(memory, "MiB", peak, OptionalDouble.empty(),
                OptionalDouble.empty(),
                "inside 4 GiB", OptionalDouble.empty(), peak <= LONG_MEBIBYTES,
                Report.JSON.createArrayNode()));
    }
}
