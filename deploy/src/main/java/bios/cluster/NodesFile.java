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

/// The file `DIR/nodes.json` with the processes of a cluster on this machine. It is replaced atomically when
/// a process starts or ends.
record NodesFile(Path file) {
    private static final ObjectMapper JSON = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

    /// One process.
    ///
    /// @param name e.g. `worker-2`
    /// @param role `coordinator`, `worker` or `cassandra`
    /// @param pid 0 if it is not running
    /// @param httpPort 0: no HTTP
    /// @param arteryPort cluster port; of Cassandra its storage port
    /// @param cqlPort CQL port of Cassandra; 0 for other processes
    /// @param actorsPort port of the actor protocol of a coordinator, if its settings enable it
    @JsonInclude(JsonInclude.Include.NON_DEFAULT)
    record ProcessEntry(@JsonProperty("name") String name, @JsonProperty("role") String role,
            @JsonProperty("host") String host, @JsonProperty("pid") long pid,
            @JsonProperty("http_port") int httpPort, @JsonProperty("artery_port") int arteryPort,
            @JsonProperty("cql_port") int cqlPort, @JsonProperty("log") String log,
            @JsonProperty("actors_port") int actorsPort) {}

    /// The processes in the file; empty without a file.
    List<ProcessEntry> read() {
        if (!Files.exists(file)) return List.of();
        try {
            return JSON.readValue(file.toFile(), new TypeReference<List<ProcessEntry>>() {});
        } catch (IOException failed) {
            throw new UncheckedIOException(
                    file + " cannot be read; delete it if none of its processes is running: "
                    + failed.getMessage(), failed);
        }
    }

    void write(List<ProcessEntry> entries) {
        Path whole = file.resolveSibling(file.getFileName() + ".new");
        try {
            JSON.writeValue(whole.toFile(), entries);
            Files.move(whole, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException failed) {
            throw new UncheckedIOException(file + " cannot be written: " + failed.getMessage(), failed);
        }
    }
}
