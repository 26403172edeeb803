package bios.bench;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.worker.device.Device;
import bios.worker.device.cpu.CpuDevice;
import bios.worker.device.cpu.CpuDevice.Activations;
import bios.worker.model.BaseModel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;

/// The engine that a benchmark measures: a model of random weights on a device in this process.
///
/// @param folder where the model has been written already
public record Setup(Shape shape, boolean bf16, Activations activations, int rank, int threads,
        Optional<Path> folder) {

    /// What a benchmark does with a loaded model.
    interface Measurement {
        void of(BaseModel model, Report report) throws IOException;
    }

    /// The same with room for sequences of so many tokens.
    public Setup withContext(int tokens) {
        return new Setup(shape.withContext(tokens), bf16, activations, rank, threads, folder);
    }

    /// Loads the model, measures, closes it.
    Report measure(String bench, UnaryOperator<Device> device, Measurement measurement) throws IOException {
        if (folder.isPresent()) return load(bench, folder.get(), device, measurement);
        Path written = Files.createTempDirectory("bios-bench-");
        try {
            shape.write(written, bf16);
            return load(bench, written, device, measurement);
        } finally {
            delete(written);
        }
    }

    private Report load(String bench, Path from, UnaryOperator<Device> wrap, Measurement measurement)
            throws IOException {
        try (Device device = wrap.apply(device());
                BaseModel model = BaseModel.load(from, name(), device)) {
            Report report = report(bench, device);
            measurement.of(model, report);
            return report;
        }
    }

    /// A device as this setup wants it.
    CpuDevice device() {
        return new CpuDevice(threads, activations);
    }

    ModelName name() {
        return new ModelName("bench/" + shape.name());
    }

    /// A report that begins with what all have in common.
    Report report(String bench, Device device) {
        Report report = new Report(bench, device.description());
        report.line().put("shape", shape.name()).put("dtype", dtype())
                .put("activations", activations.name().toLowerCase(Locale.ROOT)).put("rank", rank)
                .put("threads", threads);
        return report;
    }

    String dtype() {
        return bf16 ? "bf16" : "fp32";
    }

    /// An adapter on all linear layers.
    static LoraSpec adapter(int rank, long seed) {
        return new LoraSpec(rank, 32, seed, List.copyOf(LoraSpec.ALL_LINEAR));
    }

    /// Deletes a folder of files.
    static void delete(Path folder) throws IOException {
        try (Stream<Path> files = Files.walk(folder)) {
            for (Path file : files.toList().reversed()) Files.delete(file);
        }
    }
}
