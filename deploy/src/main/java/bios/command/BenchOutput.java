package bios.command;

import bios.bench.Report;
import java.nio.file.Path;
import java.util.Optional;
import picocli.CommandLine.Option;

/// The options for the output of a benchmark.
public final class BenchOutput {
    @Option(names = "--json", description = "Print a JSON line.")
    private boolean json;

    @Option(names = "--append", paramLabel = "FILE", description = "Append the JSON line to this file.")
    private Path append;

    void finish(Report report) {
        report.finish(json, append);
    }

    boolean json() {
        return json;
    }

    Optional<Path> append() {
        return Optional.ofNullable(append);
    }
}
