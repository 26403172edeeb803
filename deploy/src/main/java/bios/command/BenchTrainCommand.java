package bios.command;

import bios.CommandFailed;
import bios.bench.Report;
import bios.bench.Setup;
import bios.bench.TrainBench;
import bios.bench.TrainComparison;
import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios bench train`.
@Command(name = "train", mixinStandardHelpOptions = true,
        description = "A LoRA training step: forward_backward and optim_step.")
public final class BenchTrainCommand implements Callable<Integer> {
    private static final long SEED = 1;

    @Mixin private BenchEngine engine;

    @Mixin private BenchPeer peer;

    @Mixin private BenchOutput output;

    @Mixin private BenchLimit limit;

    @Option(names = "--batch", defaultValue = "8",
            description = "Sequences per batch (default: ${DEFAULT-VALUE}).")
    private int batch;

    @Option(names = "--seq", defaultValue = "256",
            description = "Tokens per sequence (default: ${DEFAULT-VALUE}); may exceed the model's context.")
    private int length;

    @Option(names = "--beside", paramLabel = "BATCHxSEQ",
            description = "Second batch shape, measured in alternating steps, e.g. 8x1024.")
    private String secondShape;

    @Option(names = "--mixed", description =
            "64 sequences of lengths log-uniform from 16 to 512, and 64 of equal length, alternating.")
    private boolean mixed;

    @Option(names = "--tenants", paramLabel = "N", defaultValue = "0",
            description = "N runs with one sequence each, of ranks 8 to 64, and one run with all sequences.")
    private int tenants;

    @Option(names = "--steps", defaultValue = "4",
            description = "Measured steps (default: ${DEFAULT-VALUE}).")
    private int steps;

    @Option(names = "--warm-up", paramLabel = "STEPS", defaultValue = "1",
            description = "Unmeasured steps first (default: ${DEFAULT-VALUE}).")
    private int warmUp;

    @Option(names = "--profile",
            description = "Print the time of each device operation and its share of the library's speed.")
    private boolean profile;

    @Option(names = "--busy", description = "Run while another process uses one core fully.")
    private boolean withBusyProcess;

    @Override public Integer call() throws IOException {
        if (steps < 1 || warmUp < 1) throw new CommandFailed("--steps and --warm-up must be at least 1");
        if (peer.compare()) new TrainComparison(peer.comparison(output, limit, steps)).run();
        else output.finish(report());
        return 0;
    }

    private Report report() throws IOException {
        Optional<int[]> second = Optional.ofNullable(secondShape).map(BenchTrainCommand::shape);
        int longest = Math.max(length, second.map(b -> b[1]).orElse(0));
        Setup setup = engine.setup().withContext(longest);
        TrainBench bench = new TrainBench(setup, steps, warmUp, peer.peer(limit), withBusyProcess, profile,
                limit.guard("train", output));
        if (mixed) return bench.mixed(SEED);
        return tenants > 0 ? bench.tenants(tenants, length) : bench.equal(batch, length, second);
    }

    private static int[] shape(String text) {
        if (!text.matches("[1-9]\\d{0,5}x[1-9]\\d{0,5}"))
            throw new CommandFailed("--beside " + text + ": expected BATCHxSEQ, e.g. 8x1024");
        String[] parts = text.split("x");
        return new int[] {Integer.parseInt(parts[0]), Integer.parseInt(parts[1])};
    }
}
