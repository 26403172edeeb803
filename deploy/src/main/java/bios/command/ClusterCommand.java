package bios.command;

import bios.CommandFailed;
import bios.cluster.LocalCluster;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios cluster`: runs a cluster on this machine.
@Command(name = "cluster", mixinStandardHelpOptions = true, description = {
        "Run coordinators and workers as separate processes against a Cassandra, on this machine.",
        "Starts a Cassandra unless one is named; restarts processes that end; prints 'bios ready on"
        + " http://HOST:PORT' when it is ready. DIR/nodes.json contains each process's role, pid and"
        + " ports, DIR/logs the logs."})
public final class ClusterCommand implements Callable<Integer> {
    private static final String KEYSPACE = "bios";

    @Option(names = "--coordinators", defaultValue = "2", paramLabel = "N",
            description = "Processes that serve HTTP (default: ${DEFAULT-VALUE}).")
    private int coordinators;

    @Option(names = "--workers", defaultValue = "2", paramLabel = "N",
            description = "Processes that train and sample (default: ${DEFAULT-VALUE}).")
    private int workers;

    @Option(names = "--data", paramLabel = "DIR",
            description = "Folder of all data (default: $$BIOS_DATA, else ~/.bios/cluster).")
    private Path data;

    @Option(names = "--port", defaultValue = "8400",
            description = "Port of the first coordinator, the others use"
            + " the following ports; 0: free ports (default: ${DEFAULT-VALUE}).")
    private int port;

    @Option(names = "--threads", paramLabel = "N",
            description = "Threads of each worker's engine (default: all cores, divided by the workers).")
    private Integer threads;

    @Option(names = "--device", split = ",", paramLabel = "DEVICE", description =
            "What the workers compute on, in turn: cpu, cuda, cuda:INDEX or cuda:UUID (default: one of"
            + " several NVIDIA cards each, else a card if there is one).")
    private List<String> devices = List.of();

    @Option(names = "--no-restart", description = "Do not restart processes that end.")
    private boolean noRestart;

    @Option(names = "--spread",
            description = "Give each process its own loopback address (127.0.0.11 and following;"
            + " Linux), for tests of network partitions.")
    private boolean spread;

    @Option(names = "--keys", paramLabel = "FILE", description =
            "Accounts and their API keys, see 'bios keys'. Without it every caller is the account 'default'.")
    private Path keys;

    @Mixin private ModelOptions models;

    @Mixin private NodeOptions options;

    @Override public Integer call() throws InterruptedException {
        if (coordinators < 1) throw new CommandFailed("--coordinators " + coordinators + ": at least 1");
        if (workers < 1) throw new CommandFailed("--workers " + workers + ": at least 1");
        Path home = data != null ? data : Optional.ofNullable(System.getenv("BIOS_DATA")).map(Path::of)
                .orElse(Path.of(System.getProperty("user.home"), ".bios", "cluster"));
        LocalCluster cluster = LocalCluster.start(settings(home.toAbsolutePath().normalize()),
                line -> System.err.println("bios: " + line));
        for (String url : cluster.urls()) System.out.println("bios ready on " + url);
        System.out.flush();
        cluster.supervise();
        return 0;
    }

    private LocalCluster.Settings settings(Path home) {
        List<String> common = new ArrayList<>();
        options.blobs().ifPresent(place -> common.addAll(List.of("--blobs", place)));
        options.config().ifPresent(file -> common.addAll(List.of("--config", absolute(file))));
        List<String> worker = new ArrayList<>();
        worker.addAll(models.arguments());
        int cores = Runtime.getRuntime().availableProcessors();
        worker.addAll(List.of("--threads",
                String.valueOf(threads != null ? threads : Math.max(1, cores / workers))));
        List<String> coordinator = keys == null ? List.of() : List.of("--keys", absolute(keys));
        return new LocalCluster.Settings(coordinators, workers, home, port, options.cassandra(),
                options.keyspace().orElse(KEYSPACE), Installation.root(), common, worker, devices,
                coordinator, !noRestart, spread);
    }

    private static String absolute(Path file) {
        return file.toAbsolutePath().normalize().toString();
    }
}
