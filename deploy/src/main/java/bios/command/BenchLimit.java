package bios.command;

import bios.bench.Guard;
import bios.bench.Report;
import bios.bench.TimeLimit;
import picocli.CommandLine.Option;

/// The time limit of each measurement of a benchmark.
public final class BenchLimit {
    /// Exit status of a benchmark whose own measurement exceeds its limit.
    private static final int EXCEEDED = 3;

    @Option(names = "--limit", paramLabel = "SECONDS", defaultValue = "300", description =
            "Longest time of one measurement: a run of the engine or of the peer. A longer one is ended and"
            + " left out, and the output says so (default: ${DEFAULT-VALUE}).")
    private long seconds;

    TimeLimit each() {
        return TimeLimit.seconds(seconds);
    }

    /// Guards measurements in this process: one that exceeds the limit ends the process, after a report that
    /// it was left out.
    Guard guard(String bench, BenchOutput output) {
        return new Guard(each(), reason -> {
            output.finish(Report.leftOut(bench, reason));
            System.exit(EXCEEDED);
        });
    }
}
