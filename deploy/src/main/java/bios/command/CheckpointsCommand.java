package bios.command;

import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointPath;
import com.fasterxml.jackson.databind.JsonNode;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/// `bios checkpoints`: list, download and delete checkpoints.
@Command(name = "checkpoints", mixinStandardHelpOptions = true,
        description = "List, download and delete checkpoints.")
public final class CheckpointsCommand implements Runnable {
    @Mixin private Remote service;

    @Option(names = "--run", description = "Only this run's.")
    private String run;

    @Override public void run() {
        JsonNode answer = service.get(run == null
                ? "/checkpoints?limit=1000"
                : "/training_runs/" + URLEncoder.encode(run, StandardCharsets.UTF_8) + "/checkpoints");
        if (service.json()) {
            System.out.println(answer);
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        for (JsonNode c : answer.path("checkpoints"))
            rows.add(List.of(c.path("path").asText(), c.path("checkpoint_type").asText(),
                    c.path("step").asText("-"), "%.1f MB".formatted(c.path("size_bytes").asLong() / 1e6),
                    c.path("time").asText(), c.path("expires_at").asText("never")));
        Remote.table(List.of("PATH", "TYPE", "STEP", "SIZE", "TIME", "EXPIRES"), rows);
    }

    @Command(name = "download", mixinStandardHelpOptions = true,
            description = "Download a checkpoint as .tar.gz, for PEFT.")
    void download(@Mixin Remote at, @Parameters(paramLabel = "PATH", description = "bios://...") String path,
            @Parameters(paramLabel = "FILE", defaultValue = "model-checkpoint.tar.gz",
                    description = "File to write (default: ${DEFAULT-VALUE}).") Path file) {
        long bytes = at.download(resource(path) + "/archive", file.toAbsolutePath());
        System.out.println(file + ": " + bytes + " bytes");
    }

    @Command(name = "delete", mixinStandardHelpOptions = true,
            description = "Delete a checkpoint, all its versions.")
    void delete(@Mixin Remote at, @Parameters(paramLabel = "PATH", description = "bios://...") String path) {
        at.send("DELETE", resource(path), "");
        System.out.println("deleted " + path);
    }

    private static String resource(String text) {
        CheckpointPath path = CheckpointPath.parse(text);
        return "/training_runs/" + path.run() + "/checkpoints/"
                + path.kind().orElse(CheckpointKind.TRAINING).segment() + "/" + path.name();
    }
}
