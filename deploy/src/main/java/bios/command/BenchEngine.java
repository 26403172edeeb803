package bios.command;

import bios.CommandFailed;
import bios.bench.Setup;
import bios.bench.Shape;
import bios.worker.device.Activations;
import bios.worker.device.DeviceSettings;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.util.Optional;
import picocli.CommandLine.Option;

/// The options of the engine that a benchmark measures.
public final class BenchEngine {
    @Option(names = "--shape", defaultValue = "llama-110m",
            description = "llama-110m, qwen2.5-0.5b, llama-3-8b or qwen3-8b (default: ${DEFAULT-VALUE}).")
    private String shape;

    @Option(names = "--dtype", defaultValue = "bf16",
            description = "bf16 or fp32 base weights (default: ${DEFAULT-VALUE}).")
    private String dtype;

    @Option(names = "--activations", description =
            "With bf16 weights: ${COMPLETION-CANDIDATES} (default: the engine's on this machine).")
    private Activations activations;

    @Option(names = "--rank", defaultValue = "32",
            description = "Rank of the adapter (default: ${DEFAULT-VALUE}).")
    private int rank;

    @Option(names = "--threads", description = "Threads of the engine (default: all cores).")
    private Integer threads;

    @Option(names = "--folder", paramLabel = "DIR",
            description = "An existing folder of such a model (default: one is written for this run).")
    private Path folder;

    Setup setup() {
        Shape found = Shape.of(shape);
        if (found == null)
            throw new CommandFailed("--shape " + shape + ": unknown; one of "
                    + String.join(", ", Shape.names()));
        if (!dtype.equals("bf16") && !dtype.equals("fp32"))
            throw new CommandFailed("--dtype " + dtype + ": bf16 or fp32");
        int cores = threads == null ? Runtime.getRuntime().availableProcessors() : threads;
        DeviceSettings engine = DeviceSettings.of(ConfigFactory.load(), cores).withMemory(Long.MAX_VALUE);
        return new Setup(found, dtype.equals("bf16"),
                activations == null ? engine : engine.withActivations(activations), rank,
                Optional.ofNullable(folder));
    }
}
