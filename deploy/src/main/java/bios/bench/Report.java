package bios.bench;

import bios.CommandFailed;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Instant;
import java.util.Map;
import java.util.function.Supplier;

/// The results of one benchmark: printed as a table, or as a JSON line.
public final class Report {
    static final ObjectMapper JSON = new ObjectMapper();
    private final ObjectNode line = JSON.createObjectNode();

    /// @param bench its name
    public Report(String bench, String device) {
        line.put("bench", bench).put("time", Instant.now().toString()).put("device", device)
                .put("cores", Runtime.getRuntime().availableProcessors());
    }

    /// A benchmark with a time limit.
    public interface Limited {
        Report run(TimeLimit limit) throws IOException;
    }

    /// The report of a benchmark, or of the reason why it was left out.
    public static Report of(String bench, TimeLimit limit, Limited benchmark) throws IOException {
        try {
            return benchmark.run(limit);
        } catch (LeftOut reason) {
            return leftOut(bench, reason.getMessage());
        }
    }

    /// The report of a benchmark that was ended: it contains the reason and no numbers.
    public static Report leftOut(String bench, String reason) {
        Report report = new Report(bench, "");
        report.line.remove("device");
        report.leaveOut(reason);
        return report;
    }

    /// The JSON object.
    public ObjectNode line() {
        return line;
    }

    /// Adds the peer's numbers and the ratio of Bios's to them, or the reason why they are left out.
    void peer(Supplier<ObjectNode> run, String field) {
        try {
            ObjectNode peer = run.get();
            line.set("peer", peer);
            line.put("ratio", two(line.path(field).asDouble() / peer.path(field).asDouble()));
        } catch (LeftOut reason) {
            leaveOut(reason.getMessage());
        }
    }

    /// Adds the reason why a measurement is missing.
    void leaveOut(String reason) {
        line.withArray("left_out").add(reason);
    }

    /// Prints the table or, on request, the JSON line; appends the line to `file` if there is one.
    public void finish(boolean json, Path file) {
        if (json) System.out.println(line);
        else line.properties().forEach(Report::print);
        if (file != null) append(file, line);
    }

    private static void print(Map.Entry<String, JsonNode> field) {
        switch (field.getValue()) {
            case ArrayNode profile when field.getKey().equals("profile") ->
                System.out.printf("%n%s%n", ProfileTable.text(profile));
            case JsonNode value -> System.out.printf("%-28s %s%n", field.getKey(),
                    value.isTextual() ? value.asText() : value.toString());
        }
    }

    /// Appends a JSON line to a file.
    static void append(Path file, JsonNode line) {
        try {
            Files.writeString(file, line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException failure) {
            throw new CommandFailed("--append " + file + ": " + failure.getMessage());
        }
    }

    /// Rounded to one decimal.
    static double round(double value) {
        return rounded(value, 10);
    }

    /// Rounded to two decimals.
    static double two(double value) {
        return rounded(value, 100);
    }

    /// Rounded to three decimals.
    static double three(double value) {
        return rounded(value, 1000);
    }

    /// What is not a number stays so.
    private static double rounded(double value, double parts) {
        return Double.isNaN(value) ? value : Math.round(value * parts) / parts;
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
