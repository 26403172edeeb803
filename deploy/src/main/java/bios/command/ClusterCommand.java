package bios.command;

import bios.CommandFailed;
import bios.cluster.LocalCluster;
import bios.protocol.model.ModelName;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios cluster`: a real cluster on this machine.
@Command(name = "cluster", mixinStandardHelpOptions = true, description = {
        "Run coordinators and workers as processes of their own against a real Cassandra, on this machine.",
        "Starts a Cassandra too unless one is named; starts again what ends; prints 'bios ready on"
        + " http://HOST:PORT' when it serves. DIR/nodes.json tells each process's role, pid and ports,"
        + " DIR/logs what they say."})
public final class ClusterCommand implements Callable<Integer> {
    private static final String KEYSPACE = "bios";

    @Option(names = "--coordinators", defaultValue = "2", paramLabel = "N",
            description = "Processes that serve HTTP (default: ${DEFAULT-VALUE}).")
    private int coordinators;

    @Option(names = "--workers", defaultValue = "2", paramLabel = "N",
            description = "Processes that train and sample (default: ${DEFAULT-VALUE}).")
    private int workers;

    @Option(names = "--data", paramLabel = "DIR",
            description = "Folder of everything that is kept (default: $$BIOS_DATA, else ~/.bios/cluster).")
    private Path data;

    @Option(names = "--port", defaultValue = "8400",
            description = "Port of the first coordinator, the others take"
            + " those behind it; 0 for free ones (default: ${DEFAULT-VALUE}).")
    private int port;

    @Option(names = "--threads", paramLabel = "N",
            description = "Threads of each worker's engine (default: all cores, divided by the workers).")
    private Integer threads;

    @Option(names = "--no-restart", description = "Do not start again what ends.")
    private boolean noRestart;

    @Option(names = "--spread",
            description = "Give each process a loopback address of its own (127.0.0.11 and on;"
            + " Linux), by which it can be cut off from the others.")
    private boolean spread;

    @Option(names = "--keys", paramLabel = "FILE", description =
            "Accounts: lines of '<account> <key>'. Without it everybody is the account 'default'.")
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
        var ended = Thread.ofPlatform().unstarted(cluster::stop);
        Runtime.getRuntime().addShutdownHook(ended);
        for (String url : cluster.urls()) System.out.println("bios ready on " + url);
        System.out.flush();
        cluster.tend();
        return 0;
    }

    private LocalCluster.Settings settings(Path home) {
        List<String> common = new ArrayList<>();
        options.blobs().ifPresent(place -> common.addAll(List.of("--blobs", place)));
        options.config().ifPresent(file -> common.addAll(List.of("--config", absolute(file))));
        List<String> worker = new ArrayList<>();
        for (Map.Entry<ModelName, Path> model : models.chosen().entrySet())
            worker.addAll(List.of("--model", model.getKey() + "=" + model.getValue()));
        int cores = Runtime.getRuntime().availableProcessors();
        worker.addAll(List.of("--threads",
                String.valueOf(threads != null ? threads : Math.max(1, cores / workers))));
        List<String> coordinator = keys == null ? List.of() : List.of("--keys", absolute(keys));
        return new LocalCluster.Settings(coordinators, workers, home, port, options.cassandra(),
                options.keyspace().orElse(KEYSPACE), Installation.root(), common, worker, coordinator,
                !noRestart,
                spread);
    }

    private static String absolute(Path file) {
        return file.toAbsolutePath().normalize().toString();
    }
}
