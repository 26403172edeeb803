package bios.bench;

import bios.protocol.model.ModelName;
import bios.worker.device.CudaSettings;
import bios.worker.device.CudaSettings.Products;
import bios.worker.device.CudaSettings.SharedRows;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.model.BaseModel;
import bios.worker.sample.Sampler;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.UnaryOperator;

/// Trains and samples in each way in which the CUDA backend can compute, beside its default, on a few layers
/// of a model: what a setting gains or loses on a card, in one run.
///
/// @param settings of the device that is measured
/// @param folder where the model of random weights is written
record GpuVariants(GpuCheck.Sizes sizes, DeviceSettings settings, Path folder) {
    private static final int LAYERS = 4, VOCABULARY = 16_384;
    private static final int RANK = 16, ADAPTERS = 8, PROMPT = 32, STEPS = 2;

    /// A setting that differs from the default.
    ///
    /// @param sameBits whether results have the bits of the default
    private record Variant(String name, UnaryOperator<CudaSettings> of, boolean sameBits) {}

    /// What was measured.
    private record Measured(double trained, double oneStream, double allStreams, Decoding.Drawn drawn) {}

    private List<Variant> variants() {
        return List.of(new Variant("graphs = off", cuda -> cuda.withGraphs(false), true),
                new Variant("early-launches = off", cuda -> cuda.withEarlyLaunches(false), true),
                products("few-rows = off", p -> p.withFewRows(false), true),
                products("low-rank-beside = off", p -> p.withLowRankBeside(false), true),
                products("shared-rows = off", p -> p.withSharedRows(SharedRows.OFF), true),
                products("shared-rows = on", p -> p.withSharedRows(SharedRows.ON), true),
                products("prefetch = off", p -> p.withPrefetches(false), true),
                products("tried-bytes = none", p -> p.withTriedBytes(Long.MAX_VALUE), true),
                products("forward-results = float32", p -> p.withForwardInBf16(false), false),
                products("algorithm-rows = " + sizes.length(), p -> p.withAlgorithmRows(sizes.length()),
                        false));
    }

    private static Variant products(String name, UnaryOperator<Products> of, boolean sameBits) {
        return new Variant(name, cuda -> cuda.withProducts(of.apply(cuda.products())), sameBits);
    }

    /// Measures the default and each variant. A variant fails if its bits are not those that it promises.
    void run(ObjectNode line) throws IOException {
        var failures = line.putArray("failures");
        Shape shape = sizes.decode().slice(LAYERS, VOCABULARY).withContext(sizes.length());
        Path at = folder.resolve(shape.name());
        shape.write(at, true);
        try {
            line.put("shape", shape.name()).put("layers", shape.layers());
            Measured usual = measured(settings, shape, at);
            add(line, "default", usual, usual);
            for (Variant variant : variants()) {
                Measured other = measured(settings.withCuda(variant.of.apply(settings.cuda())), shape, at);
                boolean same = other.drawn.same(usual.drawn);
                add(line, variant.name, other, usual).put("same_bits", same);
                if (variant.sameBits && !same) failures.add(variant.name + ": other bits");
            }
        } finally {
            Setup.delete(at);
        }
    }

    private static ObjectNode add(ObjectNode line, String name, Measured own, Measured usual) {
        return line.withArray("variants").addObject().put("variant", name)
                .put("train_tok_s", Report.round(own.trained))
                .put("one_stream_tok_s", Report.round(own.oneStream))
                .put("streams_tok_s", Report.round(own.allStreams))
                .put("train", Report.three(own.trained / usual.trained))
                .put("one_stream", Report.three(own.oneStream / usual.oneStream))
                .put("streams", Report.three(own.allStreams / usual.allStreams));
    }

    private Measured measured(DeviceSettings on, Shape shape, Path at) {
        try (Device device = Devices.open(on);
                BaseModel model = BaseModel.load(at, new ModelName("check/" + shape.name()), device,
                        DType.BF16);
                var trained = new Decoding.Adapters(model, Math.min(ADAPTERS, sizes.streams()), RANK);
                Sampler sampler = new Sampler(model, Optional.empty(), GpuGoals.samplerSettings(sizes))) {
            long budget = (long) (GpuGoals.ACTIVATIONS * (device.memoryLimit() - device.memoryInUse()));
            model.setActivationBudget(budget, budget);
            Decoding decoding = new Decoding(sampler, trained, model.info().name());
            decoding.draw(1, sizes.tokens(), PROMPT);
            Decoding.Drawn drawn = decoding.draw(sizes.streams(), sizes.tokens(), PROMPT);
            double one = decoding.rate(1, sizes.tokens(), PROMPT);
            double all = decoding.rate(sizes.streams(), sizes.tokens(), PROMPT);
            return new Measured(training(model), one, all, drawn);
        }
    }

    /// Trained tokens per second.
    private double training(BaseModel model) {
        Workload workload = Workload.of(RANK, Lengths.equal(1, sizes.length()));
        List<Double> seconds = new ArrayList<>();
        try (TrainBench.Training runs = new TrainBench.Training(model, workload)) {
            runs.step(0);
            for (int step = 1; step <= STEPS; step++) seconds.add(runs.step(step));
        }
        return workload.tokens() / Percentiles.of(seconds).median();
    }
}
