package bios.command;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios runs`: the caller's training runs.
@Command(name = "runs", mixinStandardHelpOptions = true, description = "List training runs, newest first.")
public final class RunsCommand implements Runnable {
    @Mixin private Remote service;

    @Option(names = "--limit", defaultValue = "20",
            description = "How many at most (default: ${DEFAULT-VALUE}).")
    private int limit;

    @Option(names = "--offset", defaultValue = "0",
            description = "How many to pass over (default: ${DEFAULT-VALUE}).")
    private int offset;

    @Override public void run() {
        JsonNode answer = service.get("/training_runs?limit=" + limit + "&offset=" + offset);
        if (service.json()) {
            System.out.println(answer);
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        for (JsonNode r : answer.path("training_runs"))
            rows.add(List.of(r.path("training_run_id").asText(), r.path("base_model").asText(),
                    r.path("lora_rank").asText(),
                    r.path("step").asText("-"), r.path("last_request_time").asText()));
        Remote.table(List.of("RUN", "BASE MODEL", "RANK", "STEP", "LAST REQUEST"), rows);
        System.out.println(rows.size() + " of " + answer.path("cursor").path("total_count").asLong());
    }
}
