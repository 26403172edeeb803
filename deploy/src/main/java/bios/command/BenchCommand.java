package bios.command;

import picocli.CommandLine;
import picocli.CommandLine.Command;

/// `bios bench`: measures how fast this machine trains, samples and serves, compared with a peer and a
/// ceiling measured in the same run.
@Command(name = "bench", mixinStandardHelpOptions = true, synopsisSubcommandLabel = "BENCHMARK",
        description = "Measure speed: train, sample, gemm, gateway, load, journal, runs.",
        subcommands = {BenchTrainCommand.class, BenchSampleCommand.class, BenchGemmCommand.class,
                BenchGatewayCommand.class, BenchLoadCommand.class, BenchJournalCommand.class,
                BenchRunsCommand.class})
public final class BenchCommand implements Runnable {
    @CommandLine.Spec private CommandLine.Model.CommandSpec spec;

    @Override public void run() {
        throw new CommandLine.ParameterException(spec.commandLine(),
                "Name a benchmark: train, sample, gemm, gateway, load, journal or runs.");
    }
}
