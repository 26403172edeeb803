package bios.bench;

import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.TensorData;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import bios.worker.adapter.TrainingState;
import bios.worker.model.BaseModel;
import bios.worker.sample.Sampler;
import bios.worker.sample.SamplerSettings;
import bios.worker.train.Trainer;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;

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
            try (Adapters trained = new Adapters(model, adapters, setup.rank());
                    Sampler sampler = new Sampler(model, Optional.empty(), settings)) {
                line.line().put("streams", streams).put("adapters", adapters).put("tokens", tokens);
                long peak = decode(sampler, trained, line);
                line.line().put("sampler_equals_trainer", equalsTrainer(sampler, trained));
                if (profile) profile(sampler, trained, line, profiler[0]);
                if (prefill > 0) prefill(sampler, trained, line);
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
    private long decode(Sampler sampler, Adapters trained, Report report) {
        for (int i = 0; i < warmUp; i++) {
            draw(sampler, trained, streams, tokens, PROMPT);
            if (streams > 1) draw(sampler, trained, 1, tokens, PROMPT);
        }
        List<Double> all = new ArrayList<>();
        List<Double> alone = new ArrayList<>();
        for (int i = 0; i < repetitions; i++) {
            all.add(rate(sampler, trained, streams));
            if (streams > 1) alone.add(rate(sampler, trained, 1));
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

    /// Tokens per second after the first of each stream.
    private double rate(Sampler sampler, Adapters trained, int count) {
        double first = draw(sampler, trained, count, 1, PROMPT).seconds;
        double all = draw(sampler, trained, count, tokens, PROMPT).seconds;
        return count * (tokens - 1) / (all - first);
    }

    /// Adds the cost of one token of all streams, including the prompts' share.
    private void profile(Sampler sampler, Adapters trained, Report report, Profiler profiler) {
        profiler.clear();
        double seconds = draw(sampler, trained, streams, tokens, PROMPT).seconds;
        List<Profiler.Line> lines = profiler.lines();
        try (Limits limits = Limits.of(setup.shape(), setup.bf16(), setup.threads())) {
            ProfileTable.add(report, lines, Collections.nCopies(tokens, seconds / tokens),
                    limits.forward(PASS_TOKENS).best(), Limits.readRate(setup.threads()));
        }
    }

    private void prefill(Sampler sampler, Adapters trained, Report report) {
        draw(sampler, trained, 1, 1, prefill);
        List<Double> seconds = new ArrayList<>();
        for (int i = 0; i < repetitions; i++) seconds.add(draw(sampler, trained, 1, 1, prefill).seconds);
        double rate = prefill / Percentiles.of(seconds).median();
        Work work = Work.prefill(setup.shape(), setup.rank(), Lengths.equal(1, prefill));
        try (Limits limits = Limits.of(setup.shape(), setup.bf16(), setup.threads())) {
            double ceiling = prefill * limits.forward(Math.min(prefill, PASS_TOKENS)).best() / work.all();
            report.line().put("prefill", prefill).put("prefill_tok_s", Report.round(rate))
                    .put("prefill_ceiling_tok_s", Report.round(ceiling))
                    .put("prefill_share", Report.three(rate / ceiling));
        }
    }

    /// The time and the results of a sampling run.
    private record Drawn(double seconds, List<SampleTask> tasks, List<SampleResult> results) {}

    private Drawn draw(Sampler sampler, Adapters trained, int count, int tokens, int promptTokens) {
        SamplingParams params = new SamplingParams(Optional.of(tokens), Optional.empty(), List.of(),
                List.of(), 1, -1, 1);
        SplittableRandom random = new SplittableRandom(3);
        List<SampleTask> tasks = new ArrayList<>();
        for (int i = 0; i < count; i++)
            tasks.add(new SampleTask("bench-" + i, setup.name(), Optional.empty(),
                    random.ints(promptTokens, 0, setup.shape().vocabulary()).toArray(), params, 1, i, false,
                    0));
        Map<Long, SampleResult> results = new HashMap<>();
        List<Long> tickets = new ArrayList<>();
        long begin = System.nanoTime();
        for (int i = 0; i < count; i++)
            tickets.add(sampler.submit(tasks.get(i), Optional.of(trained.of(i).adapter())));
        while (!sampler.idle())
            for (Sampler.Finished done : sampler.step()) results.put(done.id(), done.result());
        return new Drawn((System.nanoTime() - begin) * 1e-9, tasks,
                tickets.stream().map(results::get).toList());
    }

    /// Whether the log-probability of each sampled token has the same bits as the trainer's.
    private boolean equalsTrainer(Sampler sampler, Adapters trained) {
        Drawn drawn = draw(sampler, trained, streams, tokens, PROMPT);
        for (int i = 0; i < streams; i++) {
            SampleResult.Sequence sequence = drawn.results.get(i).sequences().getFirst();
            float[] forward = trained.forward(i, drawn.tasks.get(i).prompt(), sequence.tokens());
            for (int j = 0; j < sequence.tokens().length; j++)
                if (Float.floatToRawIntBits(forward[PROMPT - 1 + j])
                        != Float.floatToRawIntBits(sequence.logprobs()[j])) return false;
        }
        return true;
    }

    /// Adapters after one training step, because a new adapter does not change the model.
    private static final class Adapters implements AutoCloseable {
        private final List<TrainingState> states = new ArrayList<>();
        private final Trainer trainer;

        Adapters(BaseModel model, int count, int rank) {
            trainer = new Trainer(model);
            Workload workload = Workload.of(rank, Lengths.equal(1, PROMPT));
            for (int i = 0; i < count; i++) {
                TrainingState state = TrainingState.createInitialized(Setup.adapter(rank, i), model.spec(),
                        model.device());
                states.add(state);
                trainer.evaluate(state, workload.operation(0, model.spec().vocabularySize(), i));
                trainer.optimStep(state, Optional.of(AdamParams.DEFAULT)).complete();
            }
        }

        /// The adapter of stream `i`.
        TrainingState of(int i) {
            return states.get(i % states.size());
        }

        /// The trainer's log-probability of every token after the first.
        float[] forward(int i, int[] prompt, int[] drawn) {
            int n = prompt.length + drawn.length - 1;
            int[] input = new int[n];
            long[] targets = new long[n];
            for (int at = 0; at <= n; at++) {
                int token = at < prompt.length ? prompt[at] : drawn[at - prompt.length];
                if (at < n) input[at] = token;
                if (at > 0) targets[at - 1] = token;
            }
            Datum datum = new Datum(input, Map.of("target_tokens", TensorData.of(targets)));
            return trainer.evaluate(of(i), new Operation.ForwardBackward(List.of(datum),
                    LossFunction.CROSS_ENTROPY, Map.of(), true)).logprobs().getFirst();
        }

        @Override public void close() {
            states.forEach(TrainingState::close);
        }
    }
}
