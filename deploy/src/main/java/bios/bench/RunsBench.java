package bios.bench;

import bios.command.Installation;
import bios.worker.device.Device;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/// Many runs of the small model that comes with Bios on one server with little memory: what the process
/// takes over time, how long a run takes to come back, and whether it comes back the same.
///
/// @param python runs the client
/// @param runs how many runs live at the same time
/// @param visits how many of them are looked at again, in random order
/// @param heap largest Java heap, as `-Xmx` takes it
/// @param memory native memory, as `bios.engine.memory-bytes` takes it
/// @param room bytes of states of runs, as `bios.engine.run-bytes` takes it
/// @param limit of the client's run
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
