package bios.command;

import bios.CommandFailed;
import com.fasterxml.jackson.databind.JsonNode;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/// `bios runs`: lists the caller's training runs and shows their history.
@Command(name = "runs", mixinStandardHelpOptions = true, 
        description = "List training runs, newest first; 'history' shows the history of one, 'retry' and"
                + " 'give-up' tell it what to do with an operation that was set aside.")
public final class RunsCommand implements Runnable {
    private static final String OF_OPERATION =
            "The operation's number, seq_id (default: that of the one that waits now).";

    @Mixin private Remote service;

    @Option(names = "--limit", defaultValue = "20",
            description = "Maximum number of entries (default: ${DEFAULT-VALUE}).")
    private int limit;

    @Option(names = "--offset", defaultValue = "0",
            description = "Number of entries to skip (default: ${DEFAULT-VALUE}).")
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

    @Command(name = "history", mixinStandardHelpOptions = true,
            description = "Show the history of a run, the newest last.")
    void history(@Mixin Remote at, @Parameters(paramLabel = "RUN", description = "A run's id.") String run,
            @Option(names = "--limit", defaultValue = "100",
                    description = "Maximum number of entries (default: ${DEFAULT-VALUE}).") int most) {
        JsonNode answer = at.get("/training_runs/" + URLEncoder.encode(run, StandardCharsets.UTF_8)
                + "/history?limit=" + most);
        if (at.json()) {
            System.out.println(answer);
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        for (JsonNode entry : answer.path("history"))
            rows.add(List.of(entry.path("time").asText(), entry.path("node").asText("-"),
                    entry.path("kind").asText(), entry.path("position").asText("-"),
                    entry.path("seq_id").asText("-"), detail(entry.path("detail"))));
        Remote.table(List.of("TIME", "NODE", "KIND", "POSITION", "SEQ", "DETAIL"), rows);
    }

    @Command(name = "retry", mixinStandardHelpOptions = true,
            description = "Try the operation of a run that was set aside again, with those that wait for it.")
    void retry(@Mixin Remote at, @Parameters(paramLabel = "RUN", description = "A run's id.") String run,
            @Option(names = "--seq", description = OF_OPERATION) Optional<Long> seq) {
        System.out.println("run " + run + " tries " + decide(at, run, "retry", seq) + " again");
    }

    @Command(name = "give-up", mixinStandardHelpOptions = true,
            description = "Fail the operation of a run that was set aside, and what would train past it.")
    void giveUp(@Mixin Remote at, @Parameters(paramLabel = "RUN", description = "A run's id.") String run,
            @Option(names = "--seq", description = OF_OPERATION) Optional<Long> seq) {
        System.out.println("run " + run + " goes on without " + decide(at, run, "give_up", seq));
    }

    /// Tells a run what to do with the operation that is named, or with the one that waits now. Returns which
    /// one that is.
    private static String decide(Remote at, String run, String what, Optional<Long> named) {
        String path = "/training_runs/" + URLEncoder.encode(run, StandardCharsets.UTF_8);
        JsonNode found = at.get(path);
        if (named.isPresent() && !found.has("waiting_operation"))
            throw new CommandFailed("--seq: the server is of an older build, which does not read it");
        JsonNode waiting = found.path("waiting_operation");
        Optional<Long> seq = named.or(() -> Optional.of(waiting.path("seq_id").asLong())
                .filter(_ -> waiting.path("set_aside").asBoolean()
                        || waiting.isObject() && what.equals("give_up")));
        at.send("POST", path + "/" + what, seq.map(number -> "{\"seq_id\": " + number + "}").orElse("{}"));
        return seq.map(number -> "operation " + number).orElse("the operation");
    }

    private static String detail(JsonNode detail) {
        return detail.properties().stream().map(e -> e.getKey() + "=" + e.getValue().asText())
                .collect(Collectors.joining(" "));
    }
}
