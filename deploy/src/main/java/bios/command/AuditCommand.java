package bios.command;

import com.fasterxml.jackson.databind.JsonNode;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios audit`: who did what.
@Command(name = "audit", mixinStandardHelpOptions = true,
        description = "Show the audit log of the account, newest first.")
public final class AuditCommand implements Runnable {
    @Mixin private Remote service;

    @Option(names = "--owner", paramLabel = "ACCOUNT",
            description = "Another account; needs a key of scope operator.")
    private String owner;

    @Option(names = "--day", paramLabel = "DATE", description = "Only this day, like 2026-01-31.")
    private String day;

    @Override public void run() {
        JsonNode answer = service.get("/audit?event_type=all" + (owner == null ? "" : "&owner="
                + URLEncoder.encode(owner, StandardCharsets.UTF_8)) + (day == null ? "" : "&day="
                + URLEncoder.encode(day, StandardCharsets.UTF_8)));
        if (service.json()) {
            System.out.println(answer);
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        for (JsonNode entry : answer.path("entries"))
            rows.add(List.of(entry.path("timestamp").asText(), entry.path("event").asText(),
                    entry.path("tinker_path").isTextual() ? entry.path("tinker_path").asText()
                            : entry.path("model_id").asText("-"), entry.path("key_id").asText("-")));
        Remote.table(List.of("TIME", "EVENT", "SUBJECT", "KEY"), rows);
    }
}
