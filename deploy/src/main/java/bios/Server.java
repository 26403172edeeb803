package bios;

import bios.coordinator.Node;
import bios.coordinator.fleet.Fleet;
import bios.coordinator.fleet.ModelDirectory;
import bios.coordinator.gateway.Accounts;
import bios.coordinator.gateway.Gateway;
import bios.coordinator.gateway.GatewaySettings;
import bios.coordinator.gateway.ShardedRuns;
import bios.coordinator.health.Check;
import bios.coordinator.run.RunSettings;
import bios.coordinator.run.RunWorld;
import bios.coordinator.run.TrainingRunSharding;
import bios.coordinator.sampling.SamplingRouter;
import bios.coordinator.sampling.SamplingSettings;
import bios.coordinator.session.SessionSettings;
import bios.coordinator.session.SessionSharding;
import bios.persistence.blob.BlobStore;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.blob.MeteredBlobStore;
import bios.persistence.index.JdbcRunIndex;
import bios.persistence.journal.EmbeddedJournal;
import bios.persistence.journal.JournalInUse;
import bios.protocol.engine.EngineCommand;
import bios.protocol.model.ModelName;
import bios.worker.device.cpu.CpuDevice;
import bios.worker.engine.Engine;
import bios.worker.engine.EngineSettings;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelRefused;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import com.typesafe.config.ConfigValueFactory;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.ChildFailed;
import org.apache.pekko.actor.typed.SupervisorStrategy;
import org.apache.pekko.actor.typed.Terminated;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.cluster.typed.Join;
import org.apache.pekko.http.javadsl.ServerBinding;

/// The whole service in one process: a cluster of one, with an embedded journal and blobs as files.
public final class Server {
    /// Loading reads whole models, from a slow disk perhaps.
    private static final Duration START_LIMIT = Duration.ofMinutes(30);

    /// How long one entity may take to answer another.
    private static final Duration ASK_LIMIT = Duration.ofSeconds(20);

    private final ActorSystem<Void> system;
    private final String url;
    private final AtomicReference<String> broken;

    private Server(ActorSystem<Void> system, String url, AtomicReference<String> broken) {
        this.system = system;
        this.url = url;
        this.broken = broken;
    }

    /// What `bios up` was told.
    ///
    /// @param port 0 for a free one
    /// @param data folder of journal and blobs
    /// @param models folders by the name to serve them under, slugs distinct
    /// @param keys accounts; empty: everybody is `default`
    /// @param threads of the engine; empty: all cores
    /// @param config settings over the defaults
    public record Settings(String host, int port, Path data, Map<ModelName, Path> models, Optional<Path> keys,
            Optional<Integer> threads, Optional<Path> config) {}

    /// Starts everything and returns when the service answers; [CommandFailed] says why it cannot.
    public static Server start(Settings settings) {
        Logs.node(System.getenv().getOrDefault("BIOS_NODE", "local"));
        settings.models().values().forEach(Server::refuseUnknown);
        Accounts accounts = settings.keys().map(Server::accounts).orElseGet(Accounts::open);
        Path journal = settings.data().resolve("journal");
        FileBlobStore blobs = openData(settings.data(), journal);
        CompletableFuture<ServerBinding> bound = new CompletableFuture<>();
        AtomicReference<String> broken = new AtomicReference<>();
        Behavior<Void> guardian = Behaviors.setup(context -> {
            try {
                new Wiring(context, settings, accounts, new MeteredBlobStore(blobs), bound).begin();
            } catch (RuntimeException wrong) {
                bound.completeExceptionally(wrong);
                return Behaviors.stopped();
            }
            return Behaviors.receive(Void.class).onSignal(Terminated.class, ended -> {
                broken.set(ended instanceof ChildFailed failed
                        && failed.cause() instanceof ModelRefused refused ? refused.getMessage()
                        : "the " + ended.getRef().path().name() + " stopped; the log above says why");
                bound.completeExceptionally(new CommandFailed(broken.get()));
                return Behaviors.stopped();
            }).build();
        });
        ActorSystem<Void> system = ActorSystem.create(guardian, "bios", config(settings, journal));
        try {
            ServerBinding binding = bound.get(START_LIMIT.toSeconds(), TimeUnit.SECONDS);
            return new Server(system,
                    "http://" + settings.host() + ":" + binding.localAddress().getPort(), broken);
        } catch (ExecutionException failure) {
            system.terminate();
            throw failure.getCause() instanceof CommandFailed known
                    ? known : new CommandFailed(String.valueOf(failure.getCause().getMessage()));
        } catch (TimeoutException | InterruptedException _) {
            system.terminate();
            throw new CommandFailed("the service was not ready after " + START_LIMIT);
        }
    }

    /// Where it answers, e.g. `http://127.0.0.1:8400`.
    public String url() {
        return url;
    }

    /// Waits until the service has ended, by SIGTERM or because a part of it broke.
    public void awaitEnd() throws InterruptedException {
        try {
            system.getWhenTerminated().toCompletableFuture().get();
        } catch (ExecutionException failure) {
            throw new CommandFailed("the service ended: " + failure.getCause());
        }
        if (broken.get() != null) throw new CommandFailed(broken.get());
    }

    private static FileBlobStore openData(Path data, Path journal) {
        try {
            EmbeddedJournal.createSchema(journal);
            return FileBlobStore.open(data.resolve("blobs"));
        } catch (JournalInUse | IllegalStateException | IllegalArgumentException
                | UncheckedIOException failure) {
            throw new CommandFailed("--data " + data + ": " + failure.getMessage());
        }
    }

    private static void refuseUnknown(Path folder) {
        try {
            ModelFolder.open(folder).tensors().close();
        } catch (ModelRefused refused) {
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

    private static Config config(Settings settings, Path journal) {
        List<String> roles = new ArrayList<>(List.of("coordinator", "worker"));
        settings.models().keySet().forEach(model -> roles.add(TrainingRunSharding.role(model.slug())));
        Config given = settings.config().map(file -> {
            if (!Files.exists(file)) throw new CommandFailed("--config " + file + ": no such file");
            return ConfigFactory.parseFile(file.toFile());
        }).orElse(ConfigFactory.empty());
        return ConfigFactory.parseMap(Map.of("pekko.cluster.roles", roles)).withFallback(given)
                .withFallback(alone())
                .withFallback(EmbeddedJournal.config(journal)).withFallback(ConfigFactory.load())
                .withValue("bios.data", ConfigValueFactory.fromAnyRef(settings.data().toString())).resolve();
    }

    /// The port of a process that is alone changes with each start: it is no name.
    private static Config alone() {
        String name = System.getenv().getOrDefault("BIOS_NODE", "local");
        return ConfigFactory.parseMap(Map.of("bios.node.name", name));
    }

    /// The parts, in the order in which they begin: cluster, engine, entities, router, and at last the door.
    private record Wiring(ActorContext<Void> context, Settings settings, Accounts accounts,
            BlobStore blobs, CompletableFuture<ServerBinding> bound) {

        void begin() {
            ActorSystem<?> system = context.getSystem();
            Logs.node(Node.name(system));
            Config config = system.settings().config();
            InstantSource clock = InstantSource.system();
            Cluster cluster = Cluster.get(system);
            cluster.manager().tell(Join.create(cluster.selfMember().address()));

            int threads = settings.threads().orElse(Runtime.getRuntime().availableProcessors());
            CpuDevice.Activations activations = CpuDevice.Activations.of(config);
            // A model that is refused is the user's to mend: one line for the user, no trace.
            ActorRef<EngineCommand> engine = context.spawn(Behaviors.supervise(
                    Engine.create(EngineSettings.of(config), settings.models(),
                            () -> new CpuDevice(threads, activations), blobs))
                    .onFailure(ModelRefused.class, SupervisorStrategy.stop().withLoggingEnabled(false)),
                    "engine");
            context.watch(engine);

            JdbcRunIndex index = JdbcRunIndex.open(settings.data().resolve("journal"), clock);
            RunSettings runs = RunSettings.from(config);
            var resolver = TrainingRunSharding.resolver(system, ASK_LIMIT);
            RunWorld world = RunWorld.of(engine, blobs, index, resolver, clock, runs);
            for (ModelName model : settings.models().keySet())
                TrainingRunSharding.init(system, model.slug(), world);
            SessionSharding.init(system, SessionSettings.from(config),
                    SessionSharding.releaser(system, ASK_LIMIT), clock);

            AtomicReference<Fleet> fleet = new AtomicReference<>(Fleet.EMPTY);
            var directory = context.spawn(ModelDirectory.create(fleet,
                    config.getDuration("bios.fleet.describe-interval")), "models");
            var router = context.spawn(SamplingRouter.create(UUID.randomUUID().toString().replace("-", ""),
                    SamplingSettings.of(config.getConfig("bios.sampling")), directory, clock), "sampling");

            AtomicBoolean ready = new AtomicBoolean();
            Gateway.Parts parts = new Gateway.Parts(accounts, new ShardedRuns(system, runs),
                    (session, message, timeout) ->
                            SessionSharding.ref(system, session).ask(message::apply, timeout),
                    fleet::get, router, blobs, index, ready::get, clock, UUID::randomUUID,
                    new SecureRandom());
            Thread.ofVirtual().start(() -> open(fleet, ready, parts));
        }

        /// Opens the door once the fleet knows every model.
        private void open(AtomicReference<Fleet> fleet, AtomicBoolean ready, Gateway.Parts parts) {
            try {
                while (fleet.get().served().size() < settings.models().size()) Thread.sleep(20);
                ActorSystem<?> system = context.getSystem();
                Gateway.bind(system, settings.host(), settings.port(), parts, GatewaySettings.of(
                                system.settings().config().getConfig("bios.gateway")),
                                List.of(Check.cluster(system), Check.journal(system)))
                        .whenComplete((binding, failure) -> {
                            ready.set(failure == null);
                            if (failure == null) bound.complete(binding);
                            else bound.completeExceptionally(new CommandFailed("cannot listen on "
                                    + settings.host() + ":" + settings.port() + ": "
                                    + root(failure).getMessage() + "; choose another with --host or --port"));
                        });
            } catch (InterruptedException _) {
                bound.completeExceptionally(new CommandFailed("interrupted"));
            } catch (RuntimeException wrong) {
                bound.completeExceptionally(wrong);
            }
        }

        private static Throwable root(Throwable failure) {
            return failure.getCause() == null ? failure : root(failure.getCause());
        }
    }
}
