package bios.node;

import bios.CommandFailed;
import bios.Logs;
import bios.coordinator.gateway.Accounts;
import bios.coordinator.gateway.GatewaySettings;
import bios.coordinator.owner.OwnerSettings;
import bios.coordinator.run.RunSettings;
import bios.coordinator.sampling.SamplingSettings;
import bios.coordinator.session.SessionSettings;
import bios.persistence.Storage;
import bios.persistence.embedded.DatabaseInUse;
import bios.persistence.process.ProcessEnd;
import bios.protocol.model.ModelName;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.engine.EngineSettings;
import bios.worker.load.ModelFolders;
import bios.worker.load.ModelRefused;
import bios.worker.model.BaseModel;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashSet;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.apache.pekko.Done;
import org.apache.pekko.actor.CoordinatedShutdown;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.ChildFailed;
import org.apache.pekko.actor.typed.Terminated;
import org.apache.pekko.actor.typed.javadsl.Behaviors;

/// One process of the service: the whole service (`bios up`), or a node of a cluster (`bios node`).
public final class Node {
    /// Includes the loading of models from a slow disk.
    private static final Duration START_LIMIT = Duration.ofMinutes(30);

    private final ActorSystem<Void> system;
    private final Storage storage;
    private final Optional<String> url;
    private final AtomicReference<CommandFailed> broken;

    private Node(ActorSystem<Void> system, Storage storage, Optional<String> url,
            AtomicReference<CommandFailed> broken) {
        this.system = system;
        this.storage = storage;
        this.url = url;
        this.broken = broken;
    }

    /// The settings of a process.
    ///
    /// @param name name in logs, histories and metrics; empty: its cluster address, or `local` for a single
    /// process
    /// @param host address to listen on for HTTP
    /// @param port port of HTTP; 0: a free port
    /// @param data folder of the embedded journal and of file blobs
    /// @param models where the base models are; none without [Role#WORKER]
    /// @param keys key file; empty: every caller is the account `default`
    /// @param threads threads of the engine; empty: all cores
    /// @param settings settings that override the defaults, unresolved
    /// @param membership empty: a single process
    public record Settings(Optional<String> name, Set<Role> roles, String host, int port, Path data,
            ModelFolders models,
            Optional<Path> keys, Optional<Integer> threads, Config settings,
            Optional<Membership> membership) {
        boolean has(Role role) {
            return roles.contains(role);
        }
    }

    /// Starts the process and returns when it is ready; throws [CommandFailed] with the reason otherwise.
    public static Node start(Settings settings) {
        return start(settings, Devices::open);
    }

    /// The same with a device of the caller's.
    static Node start(Settings settings, Function<DeviceSettings, Device> devices) {
        Set<ModelName> servable = servable(settings.models());
        Accounts accounts = settings.keys().map(Node::accounts).orElseGet(Accounts::open);
        Config config = NodeConfig.of(settings, servable);
        readAll(settings, config);
        refuseStrangers(settings, config);
        Logs.node(NodeConfig.name(config));
        Storage storage = open(config);
        CompletableFuture<Optional<String>> started = new CompletableFuture<>();
        AtomicReference<CommandFailed> broken = new AtomicReference<>();
        Behavior<Void> guardian = Behaviors.setup(context -> {
            try {
                new NodeWiring(context, settings, servable, devices, accounts, storage, started).start();
            } catch (RuntimeException wrong) {
                started.completeExceptionally(wrong);
                return Behaviors.stopped();
            }
            return Behaviors.receive(Void.class).onSignal(Terminated.class, ended -> {
                broken.set(why(ended));
                started.completeExceptionally(broken.get());
                // Runs and shards leave in order; they find the engine gone and do not wait for it.
                CoordinatedShutdown.get(context.getSystem()).runAll(new PartStopped(broken.get()
                        .getMessage()));
                return Behaviors.same();
            }).build();
        });
        ActorSystem<Void> system = ActorSystem.create(guardian, NodeConfig.SYSTEM, config);
        system.getWhenTerminated().whenComplete((_, _) -> started.completeExceptionally(
                new CommandFailed("the process was stopped before it was ready")));
        try {
            // A node of a cluster waits for the other nodes without limit, and logs this.
            Optional<String> url = settings.membership().isPresent()
                    ? started.get() // edge: the main thread waits
                    : started.get(START_LIMIT.toSeconds(), TimeUnit.SECONDS); // edge: the main thread waits
            return new Node(system, storage, url, broken);
        } catch (ExecutionException failure) {
            end(system, storage);
            throw failure.getCause() instanceof CommandFailed known
                    ? known : new CommandFailed(String.valueOf(failure.getCause().getMessage()));
        } catch (TimeoutException | InterruptedException _) {
            end(system, storage);
            throw new CommandFailed("the service was not ready after " + START_LIMIT);
        }
    }

    /// Why the process is shut down: a part of it has stopped.
    record PartStopped(String why) implements CoordinatedShutdown.Reason {}

    private static CommandFailed why(Terminated ended) {
        Throwable cause = ended instanceof ChildFailed failed ? failed.cause() : null;
        return switch (cause) {
            case ModelRefused refused -> new CommandFailed(refused.getMessage());
            case DeviceLost lost -> new CommandFailed("the device is lost: " + lost.getMessage()
                    + "; start the process again", ProcessEnd.DEVICE_LOST_STATUS);
            case null, default -> new CommandFailed(
                    "the " + ended.getRef().path().name() + " stopped; the log above says why");
        };
    }

    private static void end(ActorSystem<Void> system, Storage storage) {
        system.terminate();
        storage.close();
    }

    /// The URL of its gateway, e.g. `http://127.0.0.1:8400`; empty without a gateway.
    public Optional<String> url() {
        return url;
    }

    /// The address of this process's embedded journal for its workers, if it serves it; a secret.
    public Optional<String> journalUrl() {
        return storage.databaseUrl();
    }

    /// Does `work` when the process is asked to end, before anything of it ends.
    public void beforeEnd(Runnable work) {
        CoordinatedShutdown.get(system).addTask(CoordinatedShutdown.PhaseBeforeServiceUnbind(), "before-end",
                () -> CompletableFuture.runAsync(work).thenApply(_ -> Done.getInstance()));
    }

    /// Waits until the actor system has terminated after SIGTERM. Throws [CommandFailed] if a part of the
    /// process failed or the cluster has removed the node, so that it must be restarted.
    public void awaitEnd() throws InterruptedException {
        try {
            system.getWhenTerminated().toCompletableFuture().get(); // edge: the main thread waits
        } catch (ExecutionException failure) {
            throw new CommandFailed("the service ended: " + failure.getCause());
        } finally {
            storage.close();
        }
        if (broken.get() != null) throw broken.get();
        CoordinatedShutdown.get(system).getShutdownReason()
                .filter(CoordinatedShutdown.clusterDowningReason()::equals).ifPresent(_ -> {
                    throw new CommandFailed("the cluster has removed this node: it was unreachable, or in a"
                            + " minority of the nodes; restart it");
                });
    }

    /// Without keys everybody who reaches the service may use it: on other addresses than those of this
    /// machine only if the operator says so.
    private static void refuseStrangers(Settings settings, Config config) {
        if (settings.keys().isPresent() || !settings.has(Role.COORDINATOR)
                || config.getBoolean("bios.gateway.open-to-all")) return;
        Config actors = config.getConfig("bios.gateway.actors");
        String bound = actors.getString("bind-host").isEmpty() ? actors.getString("host")
                : actors.getString("bind-host");
        if (actors.getBoolean("enabled")) refuseStrangers("bios.gateway.actors: " + bound, bound);
        refuseStrangers("--host " + settings.host(), settings.host());
    }

    private static void refuseStrangers(String named, String host) {
        if (Loopback.is(host)) return;
        throw new CommandFailed(named + " can be reached from other machines, and"
                + " without --keys everybody there could use the service: make keys with 'bios keys create'"
                + " and name their file with --keys, or set bios.gateway.open-to-all = true where a proxy or"
                + " a network lets in only those who may");
    }

    /// Reads the settings of every part once, so that a wrong one is refused before anything is opened,
    /// loaded or waited for.
    private static void readAll(Settings settings, Config config) {
        try {
            RunSettings.from(config);
            if (settings.has(Role.WORKER)) {
                EngineSettings.of(config);
                DeviceSettings.of(config, 1);
            }
            if (settings.has(Role.COORDINATOR)) {
                SessionSettings.from(config);
                OwnerSettings.from(config);
                SamplingSettings.of(config.getConfig("bios.sampling"));
                GatewaySettings.of(config.getConfig("bios.gateway"));
            }
        } catch (ConfigException | IllegalArgumentException wrong) {
            throw new CommandFailed(wrong.getMessage());
        }
    }

    private static Storage open(Config config) {
        try {
            return Storage.open(config);
        } catch (DatabaseInUse | IllegalStateException | IllegalArgumentException | ConfigException
                | UncheckedIOException failure) {
            throw new CommandFailed(failure.getMessage());
        }
    }

    /// The models whose folders have no known problem. A model with a name of its own is among them, or the
    /// process does not start.
    private static Set<ModelName> servable(ModelFolders models) {
        try {
            Set<ModelName> servable = new LinkedHashSet<>();
            for (var model : models.find().folders().entrySet()) {
                try {
                    BaseModel.check(model.getValue());
                    servable.add(model.getKey());
                } catch (ModelRefused | UncheckedIOException refused) {
                    // The engine says why the others are not served.
                    if (models.named().containsKey(model.getKey())) throw refused;
                }
            }
            return servable;
        } catch (ModelRefused | UncheckedIOException refused) {
            throw new CommandFailed(refused.getMessage());
        }
    }

    private static Accounts accounts(Path file) {
        try {
            return Accounts.fromFile(file);
        } catch (IOException failure) {
            throw new CommandFailed("--keys " + file + ": " + failure.getMessage());
        } catch (IllegalArgumentException wrong) {
            throw new CommandFailed("--keys " + wrong.getMessage());
        }
    }
}
