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

/// How a table is measured: Bios's runs and the peer's alternate, each in a new process with a time limit.
///
/// @param limit time limit of each run of Bios
/// @param rounds number of runs of each
/// @param steps number of measured steps in a run
/// @param word prints only rows whose name contains it
/// @param json whether to print JSON lines, else a table
/// @param append file for the JSON lines
public record Comparison(Peer peer, TimeLimit limit, int rounds, int steps, Optional<String> word,
        boolean json,
        Optional<Path> append) {
    /// Models are written once, with room for the longest sequences of any row.
    private static final int CONTEXT = 16384;

    /// Whether any of these rows is selected.
    boolean selects(String... names) {
        for (String name : names) if (word.isEmpty() || name.contains(word.get())) return true;
        return false;
    }

    /// Prints the table's header.
    void begin() {
        if (!json) System.out.print(Row.header());
    }

    /// Prints a row, and appends it to the file, if it is selected.
    void row(Row row) {
        if (!selects(row.quantity())) return;
        ObjectNode line = row.json();
        System.out.print(json ? line + "\n" : row.text());
        System.out.flush();
        append.ifPresent(file -> Report.append(file, line));
    }

    /// Prints a row, and appends it to the file; if runs that it needs are left out, prints the reasons
    /// instead.
    ///
    /// @param needed reasons why runs are missing; empty if none is
    void row(String quantity, String unit, List<String> needed, Supplier<Row> row) {
        row(needed.isEmpty() ? row.get() : Row.without(quantity, unit, needed));
    }

    /// Runs a benchmark of Bios in its own process and returns its JSON line.
    ///
    /// @throws LeftOut if the run takes longer than the limit
    JsonNode ours(String benchmark, List<String> arguments) {
        return ours(benchmark, limit, arguments);
    }

    /// The same with another limit.
    JsonNode ours(String benchmark, TimeLimit limit, List<String> arguments) {
        // this process enforces the limit; the child's longer limit applies if this process ends
        List<String> command = new ArrayList<>(List.of("bench", benchmark, "--json", "--limit",
                "" + limit.times(2).each().toSeconds()));
        command.addAll(arguments);
        return Peer.lastLine(Child.bios(command).output("ours " + benchmark, limit), command);
    }

    /// Models of random weights, each written once; deleted on close.
    static final class Models implements AutoCloseable {
        private final Map<String, Path> folders = new HashMap<>();

        /// The command-line options of this model.
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
