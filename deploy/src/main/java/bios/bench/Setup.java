package bios.bench;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.model.BaseModel;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;

/// The engine of a benchmark: a model of random weights on a device in this process.
///
/// @param engine settings of the device
/// @param folder an existing folder of the model
public record Setup(Shape shape, boolean bf16, DeviceSettings engine, int rank, Optional<Path> folder) {

    /// The measurement of a benchmark on a loaded model.
    interface Measurement {
        void of(BaseModel model, Report report) throws IOException;
    }

    /// The same with this context length.
    public Setup withContext(int tokens) {
        return new Setup(shape.withContext(tokens), bf16, engine, rank, folder);
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

    /// Opens a device with this setup's settings.
    Device device() {
        return Devices.open(engine);
    }

    /// The device that a server with default settings opens.
    static Device defaultDevice() {
        return Devices.open(DeviceSettings.of(ConfigFactory.load(), Runtime.getRuntime()
                .availableProcessors()));
    }

    int threads() {
        return engine.threads();
    }

    ModelName name() {
        return new ModelName("bench/" + shape.name());
    }

    /// A report with the fields that all benchmarks share.
    Report report(String bench, Device device) {
        Report report = new Report(bench, device.description());
        report.line().put("shape", shape.name()).put("dtype", dtype())
                .put("activations", engine.activations().map(a -> a.name().toLowerCase(Locale.ROOT))
                        .orElse("auto")).put("rank", rank).put("threads", threads());
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
