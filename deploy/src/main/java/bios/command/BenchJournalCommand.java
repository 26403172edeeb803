package bios.command;

import bios.bench.JournalBench;
import bios.persistence.Storage;
import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios bench journal`.
@Command(name = "journal", mixinStandardHelpOptions = true, description =
        "Events that the journal acknowledges: of one entity, and of many at the same time.")
public final class BenchJournalCommand implements Callable<Integer> {
    @Mixin private BenchOutput output;

    @Option(names = "--journal", defaultValue = "embedded",
            description = "embedded or cassandra (default: ${DEFAULT-VALUE}).")
    private Storage.JournalBackend journal;

    @Option(names = "--cassandra", paramLabel = "HOST[:PORT]", description =
            "A running Cassandra; keyspace bios_bench is made there and stays. Without it one is started.")
    private String cassandra;

    @Option(names = "--entities", defaultValue = "200",
            description = "Entities of the second part (default: ${DEFAULT-VALUE}).")
    private int entities;

    @Option(names = "--bytes", defaultValue = "300",
            description = "Size of an event (default: ${DEFAULT-VALUE}).")
    private int bytes;

    @Option(names = "--seconds", defaultValue = "10",
            description = "Measured time of each part, after half as long to warm up "
                    + "(default: ${DEFAULT-VALUE}).")
    private int seconds;

    @Override public Integer call() throws IOException, InterruptedException {
        Storage.JournalBackend kind = cassandra == null ? journal : Storage.JournalBackend.CASSANDRA;
        output.finish(new JournalBench(kind, Optional.ofNullable(cassandra), entities, bytes, seconds).run());
        return 0;
    }
}
