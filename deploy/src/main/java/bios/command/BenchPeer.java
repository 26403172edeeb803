package bios.command;

import bios.bench.Comparison;
import bios.bench.Peer;
import java.util.Optional;
import picocli.CommandLine.Option;

/// The options of the peer that a benchmark compares the engine with.
public final class BenchPeer {
    @Option(names = "--peer", paramLabel = "PYTHON", description =
            "Also run the peer (torch, transformers, peft) with this Python and print the ratio.")
    private String python;

    @Option(names = "--compare", description = "Measure the whole table of this part: ours, the peer's and"
            + " the ceiling, each run in a process of its own, in turn; python3 runs the peer unless --peer"
            + " names another.")
    private boolean compare;

    @Option(names = "--rounds", defaultValue = "2",
            description = "With --compare: runs of each (default: ${DEFAULT-VALUE}).")
    private int rounds;

    @Option(names = "--rows", paramLabel = "WORD",
            description = "With --compare: only rows whose name contains this word.")
    private String word;

    boolean compare() {
        return compare;
    }

    Optional<Peer> peer(BenchLimit limit) {
        return Optional.ofNullable(python).map(name -> new Peer(name, limit.each()));
    }

    Comparison comparison(BenchOutput output, BenchLimit limit, int steps) {
        Peer peer = new Peer(python == null ? "python3" : python, limit.each());
        peer.requireReady();
        return new Comparison(peer, limit.each(), rounds, steps, Optional.ofNullable(word), output.json(),
                output.append());
    }
}
