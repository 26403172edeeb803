package bios.command;

import bios.bench.ActorsBench;
import bios.bench.ClientsBench;
import bios.bench.Comparison;
import bios.bench.GatewayBench;
import bios.bench.GatewayComparison;
import bios.bench.Peer;
import bios.bench.Report;
import java.io.IOException;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios bench gateway`.
@Command(name = "gateway", mixinStandardHelpOptions = true, description =
        "The round trip of a small training step from Python through a server of its own.")
public final class BenchGatewayCommand implements Callable<Integer> {
    @Mixin private BenchOutput output;

    @Mixin private BenchLimit limit;

    @Option(names = "--python", defaultValue = "python3",
            description = "Python that runs the client, 3.9 or newer (default: ${DEFAULT-VALUE}).")
    private String python;

    @Option(names = "--pairs", defaultValue = "400",
            description = "Pairs of forward_backward and optim_step measured (default: ${DEFAULT-VALUE}).")
    private int pairs;

    @Option(names = "--warm-up", paramLabel = "PAIRS", defaultValue = "300",
            description = "Pairs before them (default: ${DEFAULT-VALUE}).")
    private int warmUp;

    @Option(names = "--actors", description =
            "Measure the actor protocol beside HTTP instead, both from Java: the round trip, operations per"
            + " second of many runs, MB/s of large batches.")
    private boolean actors;

    @Option(names = "--runs", defaultValue = "200",
            description = "With --actors: runs at the same time (default: ${DEFAULT-VALUE}).")
    private int runs;

    @Option(names = "--clients", defaultValue = "0", paramLabel = "CLIENTS", description =
            "Measure this many clients at a time over HTTP instead, each with a run that trains steps of"
            + " 8 tokens: p50 and p99 of an operation, operations per second, errors.")
    private int clients;

    @Option(names = "--seconds", defaultValue = "10", description = "With --actors and --clients: time of the"
            + " measurement of operations per second (default: ${DEFAULT-VALUE}).")
    private int seconds;

    @Option(names = "--compare", description =
            "Print the table of this part: the small step, and loading a model of 1 GB.")
    private boolean compare;

    @Option(names = "--rounds", defaultValue = "2",
            description = "With --compare: runs of the small step (default: ${DEFAULT-VALUE}).")
    private int rounds;

    @Option(names = "--rows", paramLabel = "WORD",
            description = "With --compare: only rows whose name contains this word.")
    private String word;

    @Override public Integer call() throws IOException {
        if (clients > 0) output.finish(limit.guard("gateway-clients", output)
                .run("the clients", () -> new ClientsBench(clients, seconds).run()));
        else if (actors) output.finish(limit.guard("gateway-actors", output)
                .run("both protocols", () -> new ActorsBench(pairs, warmUp, runs, seconds).run()));
        else if (compare) new GatewayComparison(new Comparison(new Peer(python, limit.each()),
                limit.each(), rounds, 3,
                Optional.ofNullable(word), output.json(), output.append()), options()).run();
        else output.finish(Report.of("gateway", limit.each(),
                each -> new GatewayBench(python, pairs, warmUp, each).run()));
        return 0;
    }

    private List<String> options() {
        return List.of("--python", python, "--pairs", "" + pairs, "--warm-up", "" + warmUp);
    }
}
