package bios.command;

import bios.bench.ProductBench;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios bench gemm`.
@Command(name = "gemm", mixinStandardHelpOptions = true, description =
        "Matrix products of the model's shapes, by the engine and by oneDNN alone: the ceiling.")
public final class BenchGemmCommand implements Callable<Integer> {
    @Mixin private BenchEngine engine;

    @Mixin private BenchOutput output;

    @Mixin private BenchLimit limit;

    @Option(names = "--rows", defaultValue = "1024", description = "Tokens (default: ${DEFAULT-VALUE}).")
    private int rows;

    @Override public Integer call() {
        output.finish(limit.guard("gemm", output).run("products",
                () -> new ProductBench(engine.setup()).run(rows)));
        return 0;
    }
}
