package bios.command;

import com.fasterxml.jackson.databind.JsonNode;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios usage`: what the runs of an account have used.
@Command(name = "usage", mixinStandardHelpOptions = true,
        description = "Show what the account's runs have used: tokens, device seconds, bytes of checkpoints.")
public final class UsageCommand implements Runnable {
    private static final List<String> COLUMNS = List.of("tokens_trained", "tokens_evaluated",
            "tokens_prefilled", "tokens_sampled", "device_seconds", "stored_bytes");
    @Mixin private Remote service;

    @Option(names = "--owner", paramLabel = "ACCOUNT",
            description = "Another account; needs a key of scope operator.")
    private String owner;

    @Option(names = "--project", paramLabel = "NAME", description = "Only runs of this project.")
    private String project;

    @Option(names = "--csv", description = "Print CSV, a line for each run.")
    private boolean csv;

    @Override public void run() {
        String query = "?format=" + (csv ? "csv" : "json") + parameter("owner", owner)
                + parameter("project_id", project);
        if (csv) {
            System.out.print(service.text("/usage" + query));
            return;
        }
        JsonNode answer = service.get("/usage" + query);
        if (service.json()) {
            System.out.println(answer);
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        answer.path("runs").forEach(run -> rows.add(row(run.path("training_run_id").asText(), run)));
        answer.path("base_models").forEach(model -> rows.add(row(model.path("base_model").asText(), model)));
        rows.add(row("all", answer));
        Remote.table(List.of("RUN OR MODEL", "TRAINED", "EVALUATED", "PREFILLED", "SAMPLED", "DEVICE S",
                "BYTES"), rows);
    }

    private static String parameter(String name, String value) {
        return value == null ? "" : "&" + name + "=" + URLEncoder.encode(value, StandardCharsets.UTF_8);
    }

    private static List<String> row(String name, JsonNode usage) {
        var row = new ArrayList<>(List.of(name));
        for (String column : COLUMNS) row.add(column.equals("device_seconds")
                ? String.format(Locale.ROOT, "%.1f", usage.path(column).asDouble())
                : usage.path(column).asText());
        return row;
    }
}
