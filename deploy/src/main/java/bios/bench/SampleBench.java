package bios.bench;

import bios.worker.sample.Sampler;
import bios.worker.sample.SamplerSettings;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;

/// Measures how fast the engine samples tokens.
///
/// @param streams number of concurrent sequences
/// @param adapters number of adapters that they use
/// @param tokens number of sampled tokens of each
/// @param prefill tokens of a long prompt that is measured; 0: none
/// @param repetitions number of repetitions of each measurement
/// @param warmUp repetitions of decoding before them, so that the JVM has compiled the code as in a server
/// @param peer a peer that is run afterwards
/// @param profile whether to report the cost of each operation of the device
/// @param guard time limit of the measurements in this process
public record SampleBench(Setup setup, int streams, int adapters, int tokens, int prefill, int repetitions,
        int warmUp, Optional<Peer> peer, boolean profile, Guard guard) {
    private static final int PROMPT = 32;
    private static final int PASS_TOKENS = 1024;

    /// Runs all measurements.
    public Report run() throws IOException {
        Profiler[] profiler = new Profiler[1];
        Report report = guard.run("ours sample", () -> setup.measure("sample", device -> {
            if (!profile) return device;
            profiler[0] = new Profiler(device);
            return profiler[0].proxy();
        }, (model, line) -> {
            SamplerSettings settings = new SamplerSettings(1L << 30, PASS_TOKENS, Math.max(streams, 8), 32);
            try (var trained = new Decoding.Adapters(model, adapters, setup.rank());
                    Sampler sampler = new Sampler(model, Optional.empty(), settings)) {
                Decoding decoding = new Decoding(sampler, trained, setup.name());
                line.line().put("streams", streams).put("adapters", adapters).put("tokens", tokens);
                long peak = decode(decoding, line);
                line.line().put("sampler_equals_trainer",
                        decoding.difference(streams, tokens, PROMPT).largest() == 0);
                if (profile) profile(decoding, line, profiler[0]);
                if (prefill > 0) prefill(decoding, line);
                line.line().put("peak_rss_mb", peak);
            }
        }));
        peer.ifPresent(p -> compare(report, p));
        return report;
    }

    private void compare(Report report, Peer other) {
        List<String> arguments = new ArrayList<>(List.of("--steps", "1", "--batch", "1", "--seq", "" + PROMPT,
                "--sample", "" + tokens, "--sample-batch", "" + streams));
        if (prefill > 0) arguments.addAll(List.of("--prefill", "" + prefill));
        report.peer(() -> other.run(setup.shape(), setup.bf16(), setup.rank(), arguments), "decode_tok_s");
    }

    /// Measures decoding; returns the peak memory in MiB.
    private long decode(Decoding decoding, Report report) {
        for (int i = 0; i < warmUp; i++) {
            decoding.draw(streams, tokens, PROMPT);
            if (streams > 1) decoding.draw(1, tokens, PROMPT);
        }
        List<Double> all = new ArrayList<>();
        List<Double> alone = new ArrayList<>();
        for (int i = 0; i < repetitions; i++) {
            all.add(decoding.rate(streams, tokens, PROMPT));
            if (streams > 1) alone.add(decoding.rate(1, tokens, PROMPT));
        }
        long peak = Report.peakMebibytes();     // before the ceiling allocates memory
        double rate = Percentiles.of(all).median();
        double one = streams > 1 ? Percentiles.of(alone).median() : rate;
        double read = Limits.readRate(setup.threads());
        double ceiling = read / setup.shape().decodedBytes(setup.bf16());
        report.line().put("decode_tok_s", Report.round(rate)).put("one_stream_tok_s", Report.round(one))
                .put("ratio_to_one_stream", Report.two(rate / one))
                .put("read_gb_s", Report.round(read / 1e9))
                .put("decoded_mb", setup.shape().decodedBytes(setup.bf16()) >> 20)
                .put("ceiling_one_stream_tok_s", Report.round(ceiling))
                .put("share", Report.three(one / ceiling));
        return peak;
    }

    /// Adds the cost of one token of all streams, including the prompts' share.
    private void profile(Decoding decoding, Report report, Profiler profiler) {
        profiler.clear();
        double seconds = decoding.draw(streams, tokens, PROMPT).seconds();
        List<Profiler.Line> lines = profiler.lines();
        try (Limits limits = Limits.of(setup.shape(), setup.bf16(), setup.threads())) {
            ProfileTable.add(report, lines, Collections.nCopies(tokens, seconds / tokens),
                    limits.forward(PASS_TOKENS).best(), Limits.readRate(setup.threads()));
        }
    }

    private void prefill(Decoding decoding, Report report) {
        decoding.draw(1, 1, prefill);
        List<Double> seconds = new ArrayList<>();
        for (int i = 0; i < repetitions; i++) seconds.add(decoding.draw(1, 1, prefill).seconds());
        double rate = prefill / Percentiles.of(seconds).median();
        Work work = Work.prefill(setup.shape(), setup.rank(), Lengths.equal(1, prefill));
        try (Limits limits = Limits.of(setup.shape(), setup.bf16(), setup.threads())) {
            double ceiling = prefill * limits.forward(Math.min(prefill, PASS_TOKENS)).best() / work.all();
            report.line().put("prefill", prefill).put("prefill_tok_s", Report.round(rate))
                    .put("prefill_ceiling_tok_s", Report.round(ceiling))
                    .put("prefill_share", Report.three(rate / ceiling));
        }
    }
}
