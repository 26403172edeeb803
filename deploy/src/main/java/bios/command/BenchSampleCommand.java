package bios.command;

import bios.CommandFailed;
import bios.bench.SampleBench;
import bios.bench.SampleComparison;
import java.io.IOException;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios bench sample`.
@Command(name = "sample", mixinStandardHelpOptions = true,
        description = "Decoding after a prompt of 32 tokens, and long prompts.")
public final class BenchSampleCommand implements Callable<Integer> {
    @Mixin private BenchEngine engine;

    @Mixin private BenchPeer other;

    @Mixin private BenchOutput output;

    @Mixin private BenchLimit limit;

    @Option(names = "--streams", defaultValue = "1",
            description = "Concurrent sequences (default: ${DEFAULT-VALUE}).")
    private int streams;

    @Option(names = "--adapters", defaultValue = "1",
            description = "Adapters that they use (default: ${DEFAULT-VALUE}).")
    private int adapters;

    @Option(names = "--tokens", defaultValue = "64",
            description = "Tokens of each (default: ${DEFAULT-VALUE}).")
    private int tokens;

    @Option(names = "--prefill", paramLabel = "TOKENS", defaultValue = "0",
            description = "Also the speed of a prompt of this many tokens.")
    private int prefill;

    @Option(names = "--steps", defaultValue = "3",
            description = "Repetitions; the median counts (default: ${DEFAULT-VALUE}).")
    private int repetitions;

    @Option(names = "--warm-up", defaultValue = "5",
            description = "Repetitions of decoding before them (default: ${DEFAULT-VALUE}).")
    private int warmUp;

    @Option(names = "--profile", description = "Also what each operation of the device costs.")
    private boolean profile;

    @Override public Integer call() throws IOException {
        if (streams < 1 || adapters < 1 || tokens < 2 || repetitions < 1 || warmUp < 1)
            throw new CommandFailed(
                    "--streams, --adapters, --steps and --warm-up: at least 1; --tokens: at least 2");
        if (other.compare()) new SampleComparison(other.comparison(output, limit, repetitions)).run();
        else output.finish(new SampleBench(engine.setup().withContext(prefill + 1), streams, adapters, tokens,
                prefill, repetitions, warmUp, other.peer(limit), profile, limit.guard("sample", output))
                .run());
        return 0;
    }
}
