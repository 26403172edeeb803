package bios.bench;

import bios.CommandFailed;
import bios.command.Installation;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;

/// One benchmark's results: a table for people, a JSON line for files.
public final class Report {
    private static final ObjectMapper JSON = new ObjectMapper();
    private final ObjectNode line = JSON.createObjectNode();

    /// @param bench its name
    public Report(String bench, String device) {
        line.put("bench", bench).put("time", Instant.now().toString()).put("device", device)
                .put("cores", Runtime.getRuntime().availableProcessors());
    }

    /// The JSON object.
    public ObjectNode line() {
        return line;
    }

    /// Prints the table or, on request, the JSON line; appends the line to `file` if there is one.
    public void finish(boolean json, Path file) {
        if (json) System.out.println(line);
        else line.properties().forEach(e -> System.out.printf("%-28s %s%n",
                e.getKey(), e.getValue().isTextual() ? e.getValue().asText() : e.getValue().toString()));
        if (file == null) return;
        try {
            Files.writeString(file, line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException failure) {
            throw new CommandFailed("--append " + file + ": " + failure.getMessage());
        }
    }

    /// Runs `deploy/bench/peer_peft.py` (PyTorch + transformers + PEFT) with these arguments
    /// and gives its JSON line.
    static JsonNode peer(String python, List<String> arguments) {
        List<String> command = new ArrayList<>(List.of(python,
                Installation.root().resolve("deploy/bench/peer_peft.py").toString()));
        command.addAll(arguments);
        ProcessBuilder builder = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD);
        builder.environment().remove("OMP_NUM_THREADS");
        try {
            Process process = builder.start();
            String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8)
                    .strip();
            if (process.waitFor() != 0 || output.isEmpty())
                throw new CommandFailed("the peer failed; try: " + String.join(" ", command));
            return JSON.readTree(output.substring(output.lastIndexOf('\n') + 1));
        } catch (IOException failure) {
            throw new CommandFailed("the peer could not be started: " + failure.getMessage());
        } catch (InterruptedException _) {
            throw new CommandFailed("interrupted");
        }
    }

    /// The middle one of some numbers.
    static double median(List<Double> values) {
        return values.stream().sorted().toList().get(values.size() / 2);
    }

    /// Rounded to one decimal.
    static double round(double value) {
        return Math.round(value * 10) / 10.0;
    }

    /// The most memory that this process has used, in MiB.
    static long peakMebibytes() {
        try {
            for (String row : Files.readAllLines(Path.of("/proc/self/status")))
                if (row.startsWith("VmHWM:")) return Long.parseLong(row.replaceAll("\\D", "")) / 1024;
        } catch (IOException _) {
            // not Linux
        }
        return -1;
    }
}
