package bios.command;

import bios.CommandFailed;
import bios.cluster.RestartedProcess;
import bios.node.Membership;
import bios.node.Node;
import bios.node.Role;
import bios.worker.load.ModelFolders;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios node`: runs one process of a cluster.
@Command(name = "node", mixinStandardHelpOptions = true, description =
        "Run one process of a cluster; prints 'bios ready ...' when it is ready.")
public final class NodeCommand implements Callable<Integer> {
    @Option(names = "--role", required = true, split = ",", paramLabel = "ROLE", description =
            "coordinator (HTTP, sessions, sampling requests), worker (base models and their runs), or both.")
    private List<Role> roles;

    @Option(names = "--name", defaultValue = "${env:BIOS_NODE}", description =
            "Name in logs, histories and metrics (default: $$BIOS_NODE, else the cluster address).")
    private String name;

    @Option(names = "--host", defaultValue = "127.0.0.1",
            description = "Address to listen on for HTTP (default: ${DEFAULT-VALUE}).")
    private String host;

    @Option(names = "--port", defaultValue = "8400", description =
            "Port of HTTP (of a worker: health and metrics only), 0 for a free port"
            + " (default: ${DEFAULT-VALUE}).")
    private int port;

    @Option(names = "--public-url", paramLabel = "URL",
            description = "URL by which clients reach the service, for signed URLs.")
    private String publicUrl;

    @Option(names = "--cluster-host", defaultValue = "${env:BIOS_CLUSTER_HOST:-127.0.0.1}", description =
            "Address at which the other processes reach this one (default: $$BIOS_CLUSTER_HOST, else"
            + " 127.0.0.1).")
    private String clusterHost;

    @Option(names = "--cluster-port", defaultValue = "${env:BIOS_CLUSTER_PORT:-25520}",
            description = "Port for the other processes, TCP (default: $$BIOS_CLUSTER_PORT, else 25520).")
    private int clusterPort;

    @Option(names = "--seed", required = true, split = ",", paramLabel = "HOST:PORT",
            defaultValue = "${env:BIOS_SEEDS}", description =
            "Cluster addresses of the seed processes, the same list everywhere; the first"
            + " forms a new cluster if no other answers (default: $$BIOS_SEEDS).")
    private List<String> seeds;

    @Option(names = "--data", paramLabel = "DIR", defaultValue = "${env:BIOS_DATA:-.}",
            description = "Folder of file blobs (default: $$BIOS_DATA).")
    private Path data;

    @Option(names = "--keys", paramLabel = "FILE", description =
            "Accounts and their API keys, see 'bios keys'. Without it every caller is the account 'default'.")
    private Path keys;

    @Option(names = "--threads", paramLabel = "N",
            description = "Threads of the engine (default: all cores).")
    private Integer threads;

    @Option(names = "--device", paramLabel = "DEVICE", description =
            "What computes: cpu, cuda, cuda:INDEX or cuda:UUID (default: an NVIDIA card if there is one).")
    private String device;

    @Mixin private ModelOptions models;

    @Mixin private NodeOptions options;

    @Override public Integer call() throws InterruptedException {
        if (RestartedProcess.isChild()) RestartedProcess.endWithParent(true);
        if (seeds.stream().anyMatch(seed -> !seed.matches(".+:[0-9]{1,5}")))
            throw new CommandFailed("--seed " + String.join(",", seeds) + ": expected HOST:PORT");
        Set<Role> does = EnumSet.copyOf(roles);
        ModelFolders served = does.contains(Role.WORKER) ? models.chosen() : ModelFolders.NONE;
        Node node = Node.start(new Node.Settings(
                Optional.ofNullable(name).filter(n -> !n.isEmpty()), does, host, port,
                data.toAbsolutePath().normalize(), served,
                Optional.ofNullable(keys), Optional.ofNullable(threads),
                NodeOptions.publicUrl(publicUrl).withFallback(NodeOptions.device(device))
                        .withFallback(options.settings()),
                Optional.of(new Membership(clusterHost, clusterPort, seeds))));
        System.out.println("bios ready " + node.url().map(url -> "on " + url)
                .orElse("as " + clusterHost + ":" + clusterPort));
        System.out.flush();
        node.awaitEnd();
        return 0;
    }
}
