package bios.bench;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation;
import bios.protocol.run.TensorData;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import bios.worker.adapter.TrainingState;
import bios.worker.device.cpu.CpuDevice;
import bios.worker.device.cpu.CpuDevice.Activations;
import bios.worker.device.cpu.GemmBench;
import bios.worker.model.BaseModel;
import bios.worker.sample.Sampler;
import bios.worker.sample.SamplerSettings;
import bios.worker.train.Trainer;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.stream.Stream;

/// Speeds of the engine itself, in this process, on a model of random weights.
///
/// @param peer the Python to run the peer with, right after and on the same machine
public record EngineBench(Shape shape, boolean bf16, Activations activations, int rank, int threads,
        Optional<String> peer) {

    /// Tokens per second of a training step: `forward_backward` of random tokens and `optim_step`.
    public Report train(int batch, int length, int steps) throws IOException {
        return withModel("train", (model, report) -> {
            Trainer trainer = new Trainer(model);
            List<Double> seconds = new ArrayList<>();
            try (TrainingState state = TrainingState.fresh(adapter(), model.spec(), model.device())) {
                for (int step = 0; step <= steps; step++) {
                    Operation.ForwardBackward operation = random(batch, length, step);
                    long begin = System.nanoTime();
                    trainer.evaluate(state, operation);
                    trainer.optimStep(state, Optional.of(AdamParams.DEFAULT));
                    if (step > 0) seconds.add((System.nanoTime() - begin) * 1e-9);
                }
            }
            double rate = batch * length / Report.median(seconds);
            report.line().put("batch", batch).put("seq", length).put("train_tok_s", Report.round(rate))
                    .put("peak_rss_mb", Report.peakMebibytes());
            peer(report, List.of("--batch", "" + batch, "--seq", "" + length, "--steps", "" + steps))
                    .ifPresent(other -> compare(report, other, "train_tok_s", rate));
        });
    }

    /// Tokens per second of drawing `tokens` tokens behind a prompt of 32, for `streams`
    /// sequences of one adapter at once.
    public Report sample(int streams, int tokens) throws IOException {
        return withModel("sample", (model, report) -> {
            SamplerSettings settings = new SamplerSettings(1L << 30, 2048, Math.max(streams, 8), 64);
            try (TrainingState state = TrainingState.fresh(adapter(), model.spec(), model.device());
                    Sampler sampler = new Sampler(model, Optional.empty(), settings)) {
                draw(sampler, state, streams, 4);
                double first = draw(sampler, state, streams, 1);
                double all = draw(sampler, state, streams, tokens);
                double rate = streams * (tokens - 1) / (all - first);
                report.line().put("streams", streams).put("tokens", tokens)
                        .put("decode_tok_s", Report.round(rate))
                        .put("prefill_s", Math.round(first * 1000) / 1000.0)
                        .put("peak_rss_mb", Report.peakMebibytes());
                peer(report, List.of("--steps", "1", "--batch", "1", "--seq", "32", "--sample", "" + tokens,
                        "--sample-batch", "" + streams))
                        .ifPresent(other -> compare(report, other, "decode_tok_s", rate));
            }
        });
    }

    private double draw(Sampler sampler, TrainingState state, int streams, int tokens) {
        SamplingParams params = new SamplingParams(Optional.of(tokens), Optional.empty(), List.of(),
                List.of(), 1, -1, 1);
        SplittableRandom chance = new SplittableRandom(3);
        long begin = System.nanoTime();
        for (int i = 0; i < streams; i++)
            sampler.submit(new SampleTask("bench-" + i, new ModelName("bench/" + shape.name()),
                    Optional.empty(), chance.ints(32, 0, shape.vocabulary()).toArray(), params, 1, i,
                    false, 0), Optional.of(state.adapter()));
        while (!sampler.idle()) sampler.step();
        return (System.nanoTime() - begin) * 1e-9;
    }

    /// GFLOP/s of the products of this shape.
    public Report gemm(int rows) {
        try (CpuDevice device = new CpuDevice(threads, activations)) {
            Report report = report("gemm", device);
            int headDim = shape.hidden() / shape.heads();
            int[][] products = {{shape.hidden(), shape.hidden()}, {shape.kvHeads() * headDim, shape.hidden()},
                    {shape.intermediate(), shape.hidden()}, {shape.hidden(), shape.intermediate()}};
            for (GemmBench.Row row : GemmBench.run(rows, products, bf16))
                report.line().put("gflops_" + row.m() + "x" + row.n() + "x" + row.k(),
                        Report.round(row.gflops()));
            return report;
        }
    }

    private void compare(Report report, JsonNode other, String field, double ours) {
        report.line().set("peer", other);
        report.line().put("ratio", Math.round(ours / other.path(field).asDouble() * 100) / 100.0);
    }

    private Optional<JsonNode> peer(Report report, List<String> arguments) {
        return peer.map(python -> {
            List<String> all = new ArrayList<>(List.of("--model", shape.name(), "--rank", "" + rank,
                    "--dtype", bf16 ? "bfloat16" : "float32"));
            all.addAll(arguments);
            return Report.peer(python, all);
        });
    }

    private Report report(String bench, CpuDevice device) {
        Report report = new Report(bench, device.description());
        report.line().put("shape", shape.name()).put("dtype", bf16 ? "bf16" : "fp32")
                .put("activations", activations.name().toLowerCase(Locale.ROOT)).put("rank", rank)
                .put("threads", threads);
        return report;
    }

    private LoraSpec adapter() {
        return new LoraSpec(rank, 32, 1, List.copyOf(LoraSpec.ALL_LINEAR));
    }

    private Operation.ForwardBackward random(int batch, int length, int seed) {
        SplittableRandom chance = new SplittableRandom(seed);
        List<Datum> data = new ArrayList<>();
        for (int i = 0; i < batch; i++) {
            int[] tokens = chance.ints(length, 0, shape.vocabulary()).toArray();
            long[] targets = chance.longs(length, 0, shape.vocabulary()).toArray();
            data.add(new Datum(tokens, Map.of("target_tokens", TensorData.of(targets))));
        }
        return new Operation.ForwardBackward(data, LossFunction.CROSS_ENTROPY, Map.of(), false);
    }

    /// What a benchmark does with a loaded model.
    private interface Measurement {
        void of(BaseModel model, Report report) throws IOException;
    }

    private Report withModel(String bench, Measurement measurement) throws IOException {
        Path folder = Files.createTempDirectory("bios-bench-");
        try {
            shape.write(folder, bf16);
            try (CpuDevice device = new CpuDevice(threads, activations);
                    BaseModel model = BaseModel.load(folder,
                            new ModelName("bench/" + shape.name()), device)) {
                Report report = report(bench, device);
                measurement.of(model, report);
                return report;
            }
        } finally {
            try (Stream<Path> files = Files.list(folder)) {
                for (Path file : files.toList()) Files.delete(file);
            }
            Files.delete(folder);
        }
    }
}
