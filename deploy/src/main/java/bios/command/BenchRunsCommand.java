package bios.command;

import bios.bench.Report;
import bios.bench.RunsBench;
import java.io.IOException;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios bench runs`.
@Command(name = "runs", mixinStandardHelpOptions = true, description =
        "Many runs on one server: its memory over time, and how long a run takes to return.")
public final class BenchRunsCommand implements Callable<Integer> {
    /// 2,000 runs take longer than a measurement of the engine, so the limit is multiplied by this.
    private static final int LONGER = 12;

    @Mixin private BenchOutput output;

    @Mixin private BenchLimit limit;

    @Option(names = "--python", defaultValue = "python3",
            description = "Python that runs the client, 3.9 or newer (default: ${DEFAULT-VALUE}).")
    private String python;

    @Option(names = "--runs", defaultValue = "2000",
            description = "Runs that are open at the same time (default: ${DEFAULT-VALUE}).")
    private int runs;

    @Option(names = "--visits", defaultValue = "500",
            description = "Runs that are used again, in random order (default: ${DEFAULT-VALUE}).")
    private int visits;

    @Option(names = "--heap", defaultValue = "768m",
            description = "Maximum Java heap (default: ${DEFAULT-VALUE}).")
    private String heap;

    @Option(names = "--memory", defaultValue = "900 MiB",
            description = "bios.engine.memory-bytes (default: ${DEFAULT-VALUE}).")
    private String memory;

    @Option(names = "--room", defaultValue = "128 MiB",
            description = "bios.engine.run-bytes (default: ${DEFAULT-VALUE}).")
    private String room;

    @Override public Integer call() throws IOException {
        output.finish(Report.of("runs", limit.each().times(LONGER),
                each -> new RunsBench(python, runs, visits, heap, memory, room, each).run()));
        return 0;
    }
}
