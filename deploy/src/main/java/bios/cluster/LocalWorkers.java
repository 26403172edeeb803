package bios.cluster;

import bios.CommandFailed;
import bios.worker.device.HostMemory;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;

/// The workers of a `bios up` with several devices, one for each: processes of this machine that use the
/// journal of this one. They are started again when they end, and end with this process.
public final class LocalWorkers {
    /// The variable of the environment with the address of the journal that a process uses.
    public static final String JOURNAL = "BIOS_JOURNAL";
    private static final long POLL_MILLIS = 50;
    private static final long STOP_MILLIS = 80_000;
    private static final long LEAST_HEAP_BYTES = 512L << 20, MOST_HEAP_BYTES = 4L << 30;

    private final List<Member> members = new ArrayList<>();
    private final ProcessSupervisor restarts;
    private volatile boolean stopping;

    /// @param data folder of blobs and logs
    /// @param seed address of this process in the cluster
    /// @param journal address of its journal; empty: the settings name one that all processes use
    /// @param devices what each worker computes on
    /// @param arguments further arguments of each worker
    /// @param say receives progress messages
    public LocalWorkers(Path data, String seed, Optional<String> journal, List<String> devices,
            List<String> arguments, Consumer<String> say) {
        restarts = new ProcessSupervisor(say, true);
        Path logs = data.resolve("logs");
        try {
            Files.createDirectories(logs);
        } catch (IOException failed) {
            throw new UncheckedIOException(logs + " cannot be created: " + failed.getMessage(), failed);
        }
        Map<String, String> environment = new HashMap<>();
        journal.ifPresent(url -> environment.put(JOURNAL, url));
        for (int i = 0; i < devices.size(); i++) {
            String name = "worker-" + (i + 1);
            int http = LocalCluster.freePort();
            int cluster = LocalCluster.freePort();
            var all = new ArrayList<>(List.of("--name", name, "--role", "worker", "--cluster-host",
                    LocalCluster.HOST, "--cluster-port", String.valueOf(cluster), "--seed", seed, "--host",
                    LocalCluster.HOST, "--port", String.valueOf(http), "--data", data.toString(),
                    "--device", devices.get(i)));
            all.addAll(arguments);
            members.add(new Member(name, "worker", LocalCluster.HOST, http, cluster, 0,
                    logs.resolve(name + ".log"), all, environment, memory(devices.size()), true));
        }
    }

    /// Divides the memory of the machine. Options of the user override this.
    private static List<String> memory(int workers) {
        long share = HostMemory.total() / (workers + 1);
        return List.of("-D" + RestartedProcess.CHILD + "=true", "-Xmx" + Math.clamp(share / 4,
                LEAST_HEAP_BYTES, MOST_HEAP_BYTES), "-Dbios.engine.memory-bytes=" + share);
    }

    /// What a process has of settings that its user does not give: those of `local-workers.conf`.
    public static Config settings() {
        return ConfigFactory.parseResources("local-workers.conf");
    }

    /// Starts the workers and supervises them until [#stop].
    ///
    /// @param url of this process's gateway
    /// @param ready receives the URL when all workers and the gateway are ready
    /// @throws CommandFailed if a worker [cannot start][Member#cannotStart()]
    public void run(String url, Consumer<String> ready) {
        members.forEach(restarts::start);
        boolean said = false;
        try {
            while (!stopping) {
                for (Member member : members) {
                    if (!said && !stopping && member.cannotStart()) throw member.startFailed();
                    if (!stopping) restarts.supervise(member);
                }
                if (!said && members.stream().allMatch(Member::ready) && LocalCluster.serves(url)) {
                    ready.accept(url);
                    said = true;
                }
                Thread.sleep(POLL_MILLIS); // edge: supervises processes
            }
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
        }
    }

    /// Ends the workers in order.
    public void stop() {
        stopping = true;
        restarts.end(STOP_MILLIS);
    }
}
