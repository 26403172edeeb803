package bios.command;

import bios.bench.LoadBench;
import java.io.IOException;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios bench load`.
@Command(name = "load", mixinStandardHelpOptions = true, description =
        "Loading a model folder, beside one plain read of its files; qwen2.5-0.5b in bf16 has 1 GB.")
public final class BenchLoadCommand implements Callable<Integer> {
    @Mixin private BenchEngine engine;

    @Mixin private BenchOutput output;

    @Mixin private BenchLimit limit;

    @Option(names = "--steps", defaultValue = "3",
            description = "Repetitions; the median counts (default: ${DEFAULT-VALUE}).")
    private int repetitions;

    @Override public Integer call() throws IOException {
        output.finish(limit.guard("load", output).run("loading",
                () -> new LoadBench(engine.setup(), repetitions).run()));
        return 0;
    }
}
