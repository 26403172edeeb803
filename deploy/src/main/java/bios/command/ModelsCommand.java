package bios.command;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;

/// `bios models`: lists the base models of a running service.
@Command(name = "models", mixinStandardHelpOptions = true,
        description = "List the base models of a running service, and those that it cannot serve.")
public final class ModelsCommand implements Runnable {
    @Mixin private Remote service;

    @Override public void run() {
        JsonNode answer = service.get("/get_server_capabilities");
        if (service.json()) {
            System.out.println(answer);
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        for (JsonNode m : answer.path("supported_models"))
            rows.add(List.of(m.path("model_name").asText(), m.path("architecture").asText(),
                    m.path("dtype").asText(), "%.1f M".formatted(m.path("parameters").asLong() / 1e6),
                    m.path("max_context_length").asText()));
        Remote.table(List.of("MODEL", "ARCHITECTURE", "DTYPE", "PARAMETERS", "CONTEXT"), rows);
        for (JsonNode m : answer.path("unserved_models"))
            System.out.println("not served: " + m.path("model_name").asText() + ": "
                    + m.path("reason").asText());
    }
}
