package bios.command;

import bios.CommandFailed;
import bios.bench.GpuCheck;
import bios.bench.Peer;
import bios.bench.TimeLimit;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `bios gpu-check`.
@Command(name = "gpu-check", mixinStandardHelpOptions = true,
        description = "Check and measure this machine's GPU: parity with the CPU, equal bits, limits, goals.")
public final class GpuCheckCommand implements Callable<Integer> {
    @Option(names = "--tiny", description = "Small shapes only: a few seconds, on any device.")
    private boolean tiny;

    @Option(names = "--seconds", defaultValue = "600",
            description = "No part starts after this time (default: ${DEFAULT-VALUE}).")
    private int seconds;

    @Option(names = "--only", split = ",", paramLabel = "PART", description =
            "Parts: verbs, models, bits, ceilings, train, tenants, profile, mixed, decode,"
                    + " decode-profile (default: all).")
    private List<String> only = List.of();

    @Option(names = "--peer", paramLabel = "PYTHON",
            description = "A Python with torch, transformers and peft that runs the same training step.")
    private String python;

    @Option(names = "--json", paramLabel = "FILE", description = "Write the results to this file.")
    private Path json;

    @Option(names = "--folder", paramLabel = "DIR", description =
            "Where models of random weights are written and deleted (default: a temporary folder).")
    private Path folder;

    @Override public Integer call() throws IOException {
        if (seconds < 1) throw new CommandFailed("--seconds " + seconds + ": at least 1");
        Path models = folder == null ? Files.createTempDirectory("bios-gpu-check-") : folder;
        try {
            Optional<Peer> peer = Optional.ofNullable(python)
                    .map(name -> new Peer(name, TimeLimit.seconds(seconds)));
            GpuCheck check = new GpuCheck(tiny ? GpuCheck.Sizes.TINY : GpuCheck.Sizes.FULL,
                    Duration.ofSeconds(seconds), peer, only, models, System.out);
            ObjectNode result = check.run();
            if (json != null) Files.writeString(json, result.toPrettyString() + "\n");
            if (result.path("failed").isEmpty()) return 0;
            System.out.println("✗ failed: " + result.path("failed"));
            return 1;
        } finally {
            if (folder == null) Files.deleteIfExists(models);
        }
    }
}
