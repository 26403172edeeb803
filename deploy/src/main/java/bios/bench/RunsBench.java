package bios.bench;

import bios.command.Installation;
import bios.worker.device.Device;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/// Measures many runs of the small model that comes with Bios on one server with little memory: the memory of
/// the process over time, how long an evicted run takes to be loaded again, and whether its state is
/// unchanged.
///
/// @param python Python that runs the client
/// @param runs number of runs that are open at the same time
/// @param visits number of them that are used again, in random order
/// @param heap maximum Java heap, as for `-Xmx`
/// @param memory native memory, as for `bios.engine.memory-bytes`
/// @param room bytes of states of runs, as for `bios.engine.run-bytes`
/// @param limit time limit of the client's run
public record RunsBench(String python, int runs, int visits, String heap, String memory, String room,
        TimeLimit limit) {
    private static final String MODEL = "bios/tiny";
    private static final int RANK = 8;

    /// Starts a server and measures.
    public Report run() throws IOException {
        Path data = Files.createTempDirectory("bios-bench-");
        try {
            Path config = Files.writeString(data.resolve("bios.conf"), """
                    bios.engine { memory-bytes = %s, run-bytes = %s, activation-bytes = 128 MiB }
                    bios.engine { adapter-bytes = 64 MiB, sampler.cache-bytes = 64 MiB }
                    bios.run.results.node-bytes = 32 MiB
                    """.formatted(memory, room));
            ObjectNode client;
            try (Child server = Child.bios(List.of("-Xmx" + heap), List.of("up", "--port", "0", "--data",
                    data.toString(), "--config", config.toString(), "--model",
                    MODEL + "=" + Installation.tinyModel()))) {
                client = client(server.await("bios ready on "), server.pid());
            }
            try (Device device = Setup.defaultDevice()) {
                Report report = new Report("runs", device.description());
                report.line().put("model", MODEL).put("rank", RANK).put("heap", heap).put("memory", memory)
                        .put("room", room).setAll(client);
                return report;
            }
        } finally {
            Setup.delete(data);
        }
    }

    private ObjectNode client(String url, long pid) {
        List<String> command = new ArrayList<>(List.of(python,
                Installation.root().resolve("deploy/bench/many_runs.py").toString(), "--url", url,
                "--pid", "" + pid, "--model", MODEL, "--rank", "" + RANK, "--runs", "" + runs,
                "--visits", "" + visits));
        return Peer.lastLine(Child.of(command).output("many runs", limit), command);
    }
}
