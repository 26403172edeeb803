package bios.command;

import bios.CommandFailed;
import bios.bench.GpuCheck;
import bios.bench.Peer;
import bios.bench.TimeLimit;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `bios gpu-check`.
@Command(name = "gpu-check", mixinStandardHelpOptions = true,
        description = "Check and measure this machine's GPU: parity with the CPU, equal bits, limits, goals.")
public final class GpuCheckCommand implements Callable<Integer> {
    /// A part that has begun may take so long after the time is over: then the process ends.
    private static final int LAST_PART_SECONDS = 180;

    /// The names of parts, for the help.
    static final class Parts extends ArrayList<String> {
        private static final long serialVersionUID = 1;

        Parts() {
            super(GpuCheck.PARTS);
        }
    }

    @Option(names = "--tiny", description = "Small shapes only: a few seconds, on any device.")
    private boolean tiny;

    @Option(names = "--seconds", defaultValue = "600", description = "No part starts after this time, and one"
            + " that takes more than 180 s beyond it is ended with the command (default: ${DEFAULT-VALUE}).")
    private int seconds;

    @Option(names = "--only", split = ",", paramLabel = "PART", completionCandidates = Parts.class,
            description = "Parts: ${COMPLETION-CANDIDATES} (default: all).")
    private List<String> only = List.of();

    @Option(names = "--peer", paramLabel = "PYTHON", description =
            "A Python with torch, transformers and peft that runs the same training step and generates.")
    private String python;

    @Option(names = "--json", paramLabel = "FILE",
            description = "Write the results to this file, after each part.")
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
                    Duration.ofSeconds(seconds), peer, only, models, System.out, this::write);
            ObjectNode result = TimeLimit.seconds((long) seconds + LAST_PART_SECONDS).guard("gpu-check",
                    GpuCheckCommand::end, check::run);
            if (result.path("failed").isEmpty()) return 0;
            System.out.println("✗ failed: " + result.path("failed"));
            return 1;
        } finally {
            if (folder == null) Files.deleteIfExists(models);
        }
    }

    private void write(ObjectNode result) {
        if (json == null) return;
        try {
            Files.writeString(json, result.toPrettyString() + "\n");
        } catch (IOException failure) {
            throw new UncheckedIOException("--json " + json + ": " + failure.getMessage(), failure);
        }
    }

    /// A computation of the engine cannot be interrupted; what was measured before is written.
    private static void end(String reason) {
        System.out.println("✗ the last part does not end; the results before it are written");
        Runtime.getRuntime().halt(1);
    }
}
