package bios.command;

import bios.CommandFailed;
import bios.cluster.LocalCluster;
import bios.cluster.RestartedProcess;
import bios.node.Node;
import bios.node.Role;
import bios.persistence.embedded.DatabaseInUse;
import bios.persistence.journal.JournalLoss;
import bios.repair.DataRepair;
import bios.worker.device.Devices;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
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
            "Accounts: lines of '<account> <key>'. Without it every caller is the account 'default'.")
    private Path keys;

    @Option(names = "--threads", paramLabel = "N",
            description = "Threads of the engine (default: all cores).")
    private Integer threads;

    @Option(names = "--device", paramLabel = "DEVICE", description =
            "What computes: cpu, cuda, cuda:INDEX or cuda:UUID (default: an NVIDIA card if there is one).")
    private String device;

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
        if (RestartedProcess.isChild()) RestartedProcess.endWithParent();
        else if (onCard()) return new RestartedProcess(childArguments(), line ->
                System.err.println("bios: " + line)).run();
        Node node = Node.start(new Node.Settings(Optional.empty(), EnumSet.allOf(Role.class), host, port,
                home, models.chosen(), Optional.ofNullable(keys),
                Optional.ofNullable(threads),
                NodeOptions.publicUrl(publicUrl).withFallback(NodeOptions.device(device))
                        .withFallback(NodeOptions.settings(config)),
                Optional.empty()));
        System.out.println("bios ready on " + node.url().orElseThrow());
        System.out.flush();
        node.awaitEnd();
        return 0;
    }

    /// Whether a card computes, which may be lost: then a process of its own uses it.
    private boolean onCard() {
        String chosen = NodeOptions.device(device).withFallback(NodeOptions.settings(config))
                .withFallback(ConfigFactory.load()).resolve().getString("bios.engine.device");
        return Devices.onCard(chosen);
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
