package bios.command;

import bios.CommandFailed;
import bios.cluster.LocalCluster;
import bios.cluster.LocalWorkers;
import bios.cluster.RestartedProcess;
import bios.node.Membership;
import bios.node.Node;
import bios.node.Role;
import bios.persistence.embedded.DatabaseInUse;
import bios.persistence.journal.JournalLoss;
import bios.repair.DataRepair;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.load.ModelFolders;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/// `bios up`: runs the whole service in one process, with embedded journal and file blobs.
@Command(name = "up", mixinStandardHelpOptions = true, description =
        "Serve base models from one process; prints 'bios ready on http://HOST:PORT' when it is ready.")
public final class UpCommand implements Callable<Integer> {
    @Option(names = "--host", defaultValue = "127.0.0.1",
            description = "Address to listen on (default: ${DEFAULT-VALUE}).")
    private String host;

    @Option(names = "--port", defaultValue = "8400",
            description = "Port, 0 for a free port (default: ${DEFAULT-VALUE}).")
    private int port;

    @Option(names = "--public-url", paramLabel = "URL",
            description = "URL by which clients reach the service, for signed URLs.")
    private String publicUrl;

    @Option(names = "--data", paramLabel = "DIR",
            description = "Folder of journal and blobs (default: $$BIOS_DATA, else ~/.bios).")
    private Path data;

    @Mixin private ModelOptions models;

    @Option(names = "--keys", paramLabel = "FILE", description =
            "Accounts and their API keys, see 'bios keys'. Without it every caller is the account 'default'.")
    private Path keys;

    @Option(names = "--threads", paramLabel = "N",
            description = "Threads of the engine (default: all cores).")
    private Integer threads;

    @Option(names = "--device", split = ",", paramLabel = "DEVICE", description =
            "What computes: cpu, cuda, cuda:INDEX or cuda:UUID; of several each has a worker of its own"
            + " (default: all NVIDIA cards if there are any).")
    private List<String> devices = List.of();

    @Option(names = "--config", paramLabel = "FILE",
            description = "Settings (HOCON) over the defaults; see docs/reference/settings.md.")
    private Path config;

    @Option(names = "--accept-loss", description =
            "Start although the journal has lost acknowledged events: go on with what is there, and record in"
            + " the histories of the runs what was given up.")
    private boolean acceptLoss;

    @Spec private CommandSpec spec;

    @Override public Integer call() throws InterruptedException {
        Path home = DataFolder.of(data);
        if (acceptLoss) acceptLoss(DataFolder.folder(data, config));
        List<String> several = RestartedProcess.isChild() ? List.of() : severalDevices();
        if (RestartedProcess.isChild()) RestartedProcess.endWithParent(false);
        else if (!several.isEmpty()) return withWorkers(home, several);
        else if (onCard()) return new RestartedProcess(childArguments(), line ->
                System.err.println("bios: " + line)).run();
        Node node = Node.start(new Node.Settings(Optional.empty(), EnumSet.allOf(Role.class), host, port,
                home, models.chosen(), Optional.ofNullable(keys),
                Optional.ofNullable(threads), settings(), Optional.empty()));
        System.out.println("bios ready on " + node.url().orElseThrow());
        System.out.flush();
        node.awaitEnd();
        return 0;
    }

    private Config settings() {
        return NodeOptions.publicUrl(publicUrl)
                .withFallback(NodeOptions.device(devices.isEmpty() ? null : devices.getFirst()))
                .withFallback(NodeOptions.settings(config));
    }

    /// The setting of the device, from wherever it is.
    private String device() {
        return settings().withFallback(ConfigFactory.load()).resolve().getString("bios.engine.device");
    }

    /// Whether a card computes, which may be lost: then a process of its own uses it.
    private boolean onCard() {
        return Devices.onCard(device());
    }

    /// What computes, if it is more than one device: what is given, else all cards.
    private List<String> severalDevices() {
        if (!devices.isEmpty()) return devices.size() > 1 ? devices : List.of();
        List<Integer> cards = device().equals(DeviceSettings.AUTO) ? Devices.cards() : List.of();
        return cards.size() > 1 ? cards.stream().map(card -> "cuda:" + card).toList() : List.of();
    }

    private int withWorkers(Path home, List<String> each) throws InterruptedException {
        int own = LocalCluster.freePort();
        Config shared = NodeOptions.publicUrl(publicUrl).withFallback(NodeOptions.settings(config))
                .withFallback(ConfigFactory.parseMap(Map.of("bios.storage.embedded.serve", "on")))
                .withFallback(LocalWorkers.settings());
        Node node = Node.start(new Node.Settings(Optional.of("coordinator"), EnumSet.of(Role.COORDINATOR),
                host, port, home, ModelFolders.NONE, Optional.ofNullable(keys), Optional.empty(), shared,
                Optional.of(new Membership(LocalCluster.HOST, own, List.of(LocalCluster.HOST + ":" + own)))));
        List<String> arguments = new ArrayList<>(models.arguments());
        if (config != null) arguments.addAll(List.of("--config", config.toAbsolutePath().toString()));
        if (threads != null) arguments.addAll(List.of("--threads", threads.toString()));
        var workers = new LocalWorkers(home, LocalCluster.HOST + ":" + own, node.journalUrl(), each,
                arguments, line -> System.err.println("bios: " + line));
        node.beforeEnd(workers::stop);
        Thread.ofPlatform().daemon().name("workers").start(() -> supervise(workers,
                node.url().orElseThrow()));
        node.awaitEnd();
        return 0;
    }

    private static void supervise(LocalWorkers workers, String own) {
        try {
            workers.run(own, url -> {
                System.out.println("bios ready on " + url);
                System.out.flush();
            });
        } catch (CommandFailed failed) {
            System.err.println("bios: " + failed.getMessage());
            System.exit(failed.status());
        }
    }

    /// The arguments of this command for each start of the child: always the same port.
    private List<String> childArguments() {
        List<String> given = spec.root().commandLine().getParseResult().originalArgs();
        List<String> arguments = new ArrayList<>();
        for (int i = 0; i < given.size(); i++) {
            String argument = given.get(i);
            if (argument.equals("--port")) i++;
            else if (!argument.startsWith("--port=") && !argument.equals("--accept-loss"))
                arguments.add(argument);
        }
        arguments.addAll(List.of("--port", String.valueOf(port == 0 ? LocalCluster.freePort() : port)));
        return arguments;
    }

    private static void acceptLoss(Path home) {
        try {
            new DataRepair(home, true, InstantSource.system(), System.out::println).acceptLoss();
        } catch (DatabaseInUse | JournalLoss refused) {
            throw new CommandFailed(refused.getMessage());
        }
    }
}
