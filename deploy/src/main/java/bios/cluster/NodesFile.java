package bios.cluster;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;

/// The processes of a cluster on this machine, as `DIR/nodes.json` tells them. The file is replaced as a
/// whole whenever a process starts or ends.
record NodesFile(Path file) {
    private static final ObjectMapper JSON = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

    /// One process.
    ///
    /// @param name e.g. `worker-2`
    /// @param role `coordinator`, `worker` or `cassandra`
    /// @param pid 0 while it does not run
    /// @param httpPort 0: it serves no HTTP
    /// @param arteryPort its port for the other processes; of Cassandra: 0
    /// @param cqlPort of Cassandra; of all others: 0
    @JsonInclude(JsonInclude.Include.NON_DEFAULT)
    record Entry(@JsonProperty("name") String name, @JsonProperty("role") String role,
            @JsonProperty("host") String host, @JsonProperty("pid") long pid,
            @JsonProperty("http_port") int httpPort, @JsonProperty("artery_port") int arteryPort,
            @JsonProperty("cql_port") int cqlPort, @JsonProperty("log") String log) {}

    /// What the file says; nothing if there is none.
    List<Entry> read() {
        if (!Files.exists(file)) return List.of();
        try {
            return JSON.readValue(file.toFile(), new TypeReference<List<Entry>>() {});
        } catch (IOException failed) {
            throw new UncheckedIOException(file + " cannot be read; delete it if no process of it runs: "
                    + failed.getMessage(), failed);
        }
    }

    void write(List<Entry> entries) {
        Path whole = file.resolveSibling(file.getFileName() + ".new");
        try {
            JSON.writeValue(whole.toFile(), entries);
            Files.move(whole, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException failed) {
            throw new UncheckedIOException(file + " cannot be written: " + failed.getMessage(), failed);
        }
    }
}
