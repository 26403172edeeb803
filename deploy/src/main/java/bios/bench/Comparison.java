package bios.bench;

import bios.CommandFailed;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;

/// How a table is measured: ours and the peer's in turn, each run in a fresh process with a time limit.
///
/// @param limit of each run of ours
/// @param rounds turns of each
/// @param steps measured in a run
/// @param word only rows whose name has it
/// @param json whether to print JSON lines, else a table
/// @param append file for the JSON lines
public record Comparison(Peer peer, TimeLimit limit, int rounds, int steps, Optional<String> word,
        boolean json,
        Optional<Path> append) {
    /// Models are written once, with room for the longest sequences of any row.
    private static final int CONTEXT = 16384;

    /// Whether a row is asked for.
    boolean wants(String... names) {
        for (String name : names) if (word.isEmpty() || name.contains(word.get())) return true;
        return false;
    }

    /// Prints the table's head.
    void begin() {
        if (!json) System.out.print(Row.header());
    }

    /// Prints and keeps a row if it is asked for.
    void row(Row row) {
        if (!wants(row.quantity())) return;
        ObjectNode line = row.json();
        System.out.print(json ? line + "\n" : row.text());
        System.out.flush();
        append.ifPresent(file -> Report.append(file, line));
    }

    /// Prints and keeps a row, or, where runs of ours that it needs are left out, the reasons in its place.
    ///
    /// @param needed reasons why such runs are missing
    void row(String quantity, String unit, List<String> needed, Supplier<Row> row) {
        row(needed.isEmpty() ? row.get() : Row.without(quantity, unit, needed));
    }

    /// Runs a benchmark of ours in a process of its own and returns its JSON line.
    ///
    /// @throws LeftOut when the run takes longer than the limit
    JsonNode ours(String benchmark, List<String> arguments) {
        return ours(benchmark, limit, arguments);
    }

    /// The same with a limit of its own.
    JsonNode ours(String benchmark, TimeLimit limit, List<String> arguments) {
        // this process enforces the limit; the child's own is for when nobody watches it
        List<String> command = new ArrayList<>(List.of("bench", benchmark, "--json", "--limit",
                "" + limit.times(2).each().toSeconds()));
        command.addAll(arguments);
        return Peer.lastLine(Child.bios(command).output("ours " + benchmark, limit), command);
    }

    /// Models of random weights, each written once; deleted at the end.
    static final class Models implements AutoCloseable {
        private final Map<String, Path> folders = new HashMap<>();

        /// The options that name this model.
        List<String> options(Shape shape, boolean bf16) {
            String dtype = bf16 ? "bf16" : "fp32";
            Path folder = folders.computeIfAbsent(shape.name() + " " + dtype, _ -> written(shape, bf16));
            return List.of("--shape", shape.name(), "--dtype", dtype, "--folder", folder.toString());
        }

        private static Path written(Shape shape, boolean bf16) {
            try {
                Path folder = Files.createTempDirectory("bios-bench-");
                shape.withContext(CONTEXT).write(folder, bf16);
                return folder;
            } catch (IOException failure) {
                throw new CommandFailed("a model could not be written: " + failure.getMessage());
            }
        }

        @Override public void close() {
            try {
                for (Path folder : folders.values()) Setup.delete(folder);
            } catch (IOException failure) {
                throw new CommandFailed("a model could not be deleted: " + failure.getMessage());
            }
        }
    }
}
