package bios.node;

import bios.CommandFailed;
import bios.coordinator.PeriodicSweep;
import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.fleet.ModelDirectory;
import bios.coordinator.gateway.Accounts;
import bios.coordinator.gateway.Gateway;
import bios.coordinator.gateway.GatewaySettings;
import bios.coordinator.gateway.Management;
import bios.coordinator.gateway.RequestMemory;
import bios.coordinator.gateway.ShardedOwners;
import bios.coordinator.gateway.ShardedRuns;
import bios.coordinator.gateway.ShardedSessions;
import bios.coordinator.health.Check;
import bios.coordinator.owner.OwnerSettings;
import bios.coordinator.owner.OwnerSharding;
import bios.coordinator.owner.SamplingUsageReporter;
import bios.coordinator.run.RunSettings;
import bios.coordinator.run.ExpirySweep;
import bios.coordinator.run.RunEnvironment;
import bios.coordinator.run.TrainingRunSharding;
import bios.coordinator.sampling.SamplingRouter;
import bios.coordinator.sampling.SamplingSettings;
import bios.coordinator.sampling.PersistentSampleRequestStore;
import bios.coordinator.session.SessionSettings;
import bios.coordinator.session.SessionSharding;
import bios.persistence.Storage;
import bios.persistence.blob.BlobStore;
import bios.persistence.blob.MeteredBlobStore;
import bios.persistence.marks.ExecutionMarks;
import bios.persistence.process.ProcessEnd;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelName;
import bios.protocol.run.DeathReport;
import bios.protocol.run.RunCommand;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.DeviceSettings;
import bios.worker.engine.Engine;
import bios.worker.engine.EngineSettings;
import bios.worker.engine.ModelSource;
import bios.worker.load.FingerprintCache;
import bios.worker.load.ModelRefused;
import com.typesafe.config.Config;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import org.apache.pekko.Done;
import org.apache.pekko.actor.Address;
import org.apache.pekko.actor.AddressFromURIString;
import org.apache.pekko.actor.CoordinatedShutdown;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.SupervisorStrategy;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.AskPattern;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.cluster.MemberStatus;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.cluster.typed.Join;
import org.apache.pekko.cluster.typed.JoinSeedNodes;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Starts the parts of a process in order: engine, entities, router, cluster membership, HTTP. A worker
/// joins the cluster when its models are loaded; from then on runs may be placed on it.
final class NodeWiring {
    private static final Logger LOG = LoggerFactory.getLogger(NodeWiring.class);
    /// Timeout of asks between entities.
    private static final Duration ASK_LIMIT = Duration.ofSeconds(20);
    private static final Duration LOAD_LIMIT = Duration.ofHours(24);
    private static final Duration SWEEP_INTERVAL = Duration.ofDays(1);
    /// How late a checkpoint of a passivated run may be removed.
    private static final Duration EXPIRY_INTERVAL = Duration.ofHours(1);
    /// The models are served by then.
    private static final Duration FIRST_EXPIRY = Duration.ofMinutes(1);
    private static final long POLL_MILLIS = 20;
    private static final long LOG_MILLIS = 30_000;

    private final ActorContext<Void> context;
    private final ActorSystem<Void> system;
    private final Node.Settings settings;
    private final Set<ModelName> servable;
    private final Function<DeviceSettings, Device> devices;
    private final Accounts accounts;
    private final Storage storage;
    private final CompletableFuture<Optional<String>> started;
    private final Config config;
    private final RunSettings runs;
    private final BlobStore blobs;
    /// Of the runs that this process hosts; null without [Role#WORKER].
    private RunEnvironment environment;
    private int loadedModels;
    private final InstantSource clock = InstantSource.system();
    private final AtomicBoolean open = new AtomicBoolean();
    private List<DeathReport> deaths = List.of();
    private final AtomicReference<EngineDirectory> engineDirectory =
            new AtomicReference<>(EngineDirectory.EMPTY);

    /// @param servable the models that the process has told the cluster it serves
    /// @param devices opens the engine's device
    /// @param started completed when the process is ready, with the URL of its gateway if it has one
    NodeWiring(ActorContext<Void> context, Node.Settings settings, Set<ModelName> servable,
            Function<DeviceSettings, Device> devices, Accounts accounts, Storage storage,
            CompletableFuture<Optional<String>> started) {
        this.context = context;
        this.system = context.getSystem();
        this.settings = settings;
        this.servable = servable;
        this.devices = devices;
        this.accounts = accounts;
        this.storage = storage;
        this.started = started;
        this.config = system.settings().config();
        this.runs = RunSettings.from(config);
        this.blobs = new MeteredBlobStore(storage.blobs());
    }

    void start() {
        Optional<ActorRef<EngineCommand>> engine =
                settings.has(Role.WORKER) ? Optional.of(worker()) : Optional.empty();
        Optional<Gateway.Dependencies> gateway =
                settings.has(Role.COORDINATOR) ? Optional.of(coordinator()) : Optional.empty();
        Thread.ofVirtual().start(() -> {
            try {
                engine.ifPresent(this::loaded);
                join();
                reportDeaths();
                if (gateway.isPresent()) open(gateway.get());
                else manage();
            } catch (InterruptedException _) {
                started.completeExceptionally(new CommandFailed("interrupted"));
            } catch (RuntimeException wrong) {
                started.completeExceptionally(wrong);
            }
        });
    }

    private ActorRef<EngineCommand> worker() {
        int threads = settings.threads().orElse(Runtime.getRuntime().availableProcessors());
        DeviceSettings device = DeviceSettings.of(config, threads);
        ExecutionMarks marks = marks();
        var behavior = Engine.create(EngineSettings.of(config), models(), () -> devices.apply(device),
                blobs, marks);
        // A refused model is an error of the user, and the engine logs a lost device: no stack trace.
        // Either ends the process, see Node.
        var quiet = SupervisorStrategy.stop().withLoggingEnabled(false);
        ActorRef<EngineCommand> engine = context.spawn(Behaviors.supervise(
                Behaviors.supervise(behavior).onFailure(ModelRefused.class, quiet))
                .onFailure(DeviceLost.class, quiet), "engine");
        context.watch(engine);
        environment = RunEnvironment.of(engine, blobs, storage.index(),
                TrainingRunSharding.resolver(system, ASK_LIMIT), clock, runs)
                .withMarks(marks::report, marks::executed, marks::contained);
        for (ModelName model : servable)
            TrainingRunSharding.init(system, model.slug(), environment);
        // Sampling requests move to other engines before the runs do.
        CoordinatedShutdown.get(system).addTask(CoordinatedShutdown.PhaseBeforeServiceUnbind(),
                "engine-retires",
                () -> {
                    engine.tell(new EngineCommand.Drain());
                    return CompletableFuture.completedFuture(Done.getInstance());
                });
        return engine;
    }

    /// The marks of what this process executes. Its end counts unless it is shut down in order.
    private ExecutionMarks marks() {
        ExecutionMarks marks = ExecutionMarks.open(settings.data().resolve("marks"),
                ProcessEnd.ofPrevious());
        deaths = marks.reports();
        for (DeathReport report : deaths) {
            if (report.cause().isEmpty()) continue;
            LOG.atInfo().addKeyValue("run", report.run()).addKeyValue("position", report.position())
                    .log("the process before ended while it executed an operation: {}, {} times"
                            + " alone", report.cause(), report.alone());
        }
        var shutdown = CoordinatedShutdown.get(system);
        shutdown.addTask(CoordinatedShutdown.PhaseBeforeServiceUnbind(), "marks-stopping", () -> {
            boolean failed = shutdown.getShutdownReason().filter(Node.PartStopped.class::isInstance)
                    .isPresent();
            if (!failed) marks.stopping();
            return CompletableFuture.completedFuture(Done.getInstance());
        });
        system.getWhenTerminated().whenComplete((_, _) -> marks.close());
        return marks;
    }

    /// Tells the runs, wherever they are now, how the process before ended and what it had executed.
    private void reportDeaths() {
        for (DeathReport report : deaths)
            if (servable.stream().anyMatch(m -> m.slug().equals(report.run().slug())))
                TrainingRunSharding.ref(system, report.run()).tell(new RunCommand.ReportDeath(report));
    }

    /// A node of a cluster serves what it has announced by its roles, which do not change. A single process
    /// may find further models later.
    private ModelSource models() {
        Path cache = Path.of(config.getString("bios.data"), "base-models.json");
        return new ModelSource(settings.models(),
                settings.membership().isPresent() ? Optional.of(servable) : Optional.empty(),
                new FingerprintCache(Optional.of(cache)),
                config.getDuration("bios.engine.model-check-interval"));
    }

    /// Hosts the runs of a base model if this node serves it.
    private boolean host(String slug) {
        if (Cluster.get(system).selfMember().hasRole(TrainingRunSharding.role(slug))) return true;
        if (settings.membership().isPresent() || environment == null) return false;
        TrainingRunSharding.init(system, slug, Role.WORKER.clusterRole(), environment);
        return true;
    }

    private Gateway.Dependencies coordinator() {
        var memory = RequestMemory.of(GatewaySettings.of(config.getConfig("bios.gateway")));
        var sharded = new ShardedRuns(system, runs, memory, this::host);
        SessionSharding.init(system, SessionSettings.from(config),
                SessionSharding.releaser(system, ASK_LIMIT), clock);
        var modelDirectory = context.spawn(ModelDirectory.create(engineDirectory,
                config.getDuration("bios.fleet.describe-interval")), "models");
        // Sessions send commands to runs of every known model, so the shard proxies are started at once.
        modelDirectory.tell(new ModelDirectory.Subscribe(context.spawn(Behaviors.receiveMessage(now -> {
            now.servedModels().forEach(model -> sharded.startProxy(model.name().slug()));
            return Behaviors.same();
        }), "proxies")));
        PeriodicSweep.start(system, Duration.ZERO, SWEEP_INTERVAL, "interrupted writes of blobs",
                storage::sweep);
        PeriodicSweep.start(system, FIRST_EXPIRY, EXPIRY_INTERVAL, "expired checkpoints", () ->
                ExpirySweep.wake(storage.index().expired(), this::serves, run -> sharded.ask(run, replyTo ->
                        new RunCommand.Describe("", replyTo), ASK_LIMIT)));
        OwnerSettings owners = OwnerSettings.from(config);
        OwnerSharding.init(system, owners);
        var shardedOwners = new ShardedOwners(system, memory);
        String name = UUID.randomUUID().toString().replace("-", ""); // edge: a name of its own
        var kept = new PersistentSampleRequestStore(storage.samplingTasks(), task ->
        Thread.ofVirtual().start(task));
        var router = context.spawn(SamplingRouter.create(name, SamplingSettings.of(
                config.getConfig("bios.sampling")), modelDirectory, kept, sharded::keepWeights,
                sampled(name, owners, shardedOwners), System::nanoTime), "sampling"); // edge: monotonic clock
        return new Gateway.Dependencies(accounts, sharded, new ShardedSessions(system, memory), shardedOwners,
                engineDirectory::get, router, blobs, storage.index(), this::ready, clock, UUID::randomUUID,
                new SecureRandom(), memory); // edge: the key of signed URLs
    }

    /// Reports what was sampled, at an interval and when the process is shut down.
    private SamplingUsageReporter sampled(String name, OwnerSettings owners, ShardedOwners sharded) {
        var usage = new SamplingUsageReporter(name, clock, sharded::count);
        system.scheduler().scheduleWithFixedDelay(owners.countEvery(), owners.countEvery(), usage::flush,
                system.executionContext());
        CoordinatedShutdown.get(system).addTask(CoordinatedShutdown.PhaseServiceRequestsDone(),
                "sampling-counted", () -> usage.flush().thenApply(_ -> Done.getInstance()));
        return usage;
    }

    private boolean serves(String slug) {
        return engineDirectory.get().servedModels().stream().anyMatch(m -> m.name().slug().equals(slug));
    }

    private boolean ready() {
        return open.get() && !engineDirectory.get().servedModels().isEmpty()
                && Cluster.get(system).selfMember().status() == MemberStatus.up();
    }

    /// The engine answers when all its models are loaded.
    private void loaded(ActorRef<EngineCommand> engine) {
        CompletionStage<EngineReply> described =
                AskPattern.ask(engine, EngineCommand.Describe::new, LOAD_LIMIT, system.scheduler());
        try {
            var reply = (EngineReply.Description) described.toCompletableFuture()
                    .join(); // edge: a virtual thread waits at start
            loadedModels = reply.models().size();
        } catch (CompletionException failed) {
            throw new CommandFailed("the engine did not start: " + root(failed).getMessage());
        }
    }

    private void join() throws InterruptedException {
        Cluster cluster = Cluster.get(system);
        if (settings.membership().isEmpty()) {
            cluster.manager().tell(Join.create(cluster.selfMember().address()));
        } else {
            var membership = settings.membership().get();
            cluster.manager().tell(JoinSeedNodes.apply(scala.jdk.javaapi.CollectionConverters
                    .asScala(membership.seeds().stream().map(NodeWiring::address).toList()).toSeq()));
        }
        await(() -> cluster.selfMember().status() == MemberStatus.up(), () ->
                "waiting for the cluster: none of "
                + settings.membership().map(Membership::seeds) + " has accepted this node yet");
    }

    private static Address address(String seed) {
        try {
            return AddressFromURIString.parse("pekko://" + NodeConfig.SYSTEM + "@" + seed);
        } catch (RuntimeException _) {
            throw new CommandFailed("--seed " + seed + ": expected HOST:PORT");
        }
    }

    private void await(BooleanSupplier done, java.util.function.Supplier<String> what)
            throws InterruptedException {
        for (long waited = 0; !done.getAsBoolean(); waited += POLL_MILLIS) {
            if (waited % LOG_MILLIS == LOG_MILLIS - POLL_MILLIS) LOG.warn("{}", what.get());
            Thread.sleep(POLL_MILLIS); // edge: waits for the cluster
        }
    }

    private void open(Gateway.Dependencies parts) throws InterruptedException {
        // A single process is ready when all of its models are served; in a cluster models come and go with
        // workers.
        if (settings.membership().isEmpty())
            await(() -> engineDirectory.get().servedModels().size() >= loadedModels, () ->
            "waiting for the models");
        Gateway.bind(system, settings.host(), settings.port(), parts, GatewaySettings.of(
                config.getConfig("bios.gateway")), checks()).whenComplete((binding, failure) -> {
                    open.set(failure == null);
                    if (failure == null) started.complete(Optional.of(scheme() + "://" + settings.host() + ":"
                            + binding.localAddress().getPort()));
                    else started.completeExceptionally(cannotListen(failure));
                });
    }

    private String scheme() {
        return config.getString("bios.gateway.tls.key-store").isBlank() ? "http" : "https";
    }

    /// A process without a gateway serves the management endpoints.
    private void manage() {
        Management.bind(system, settings.host(), settings.port(), checks()).whenComplete((_, failure) -> {
            if (failure == null) started.complete(Optional.empty());
            else started.completeExceptionally(cannotListen(failure));
        });
    }

    private List<Check> checks() {
        return List.of(Check.cluster(system), Check.journal(system));
    }

    private CommandFailed cannotListen(Throwable failure) {
        return new CommandFailed("cannot listen on " + settings.host() + ":" + settings.port() + ": "
                + root(failure).getMessage() + "; choose another with --host or --port");
    }

    private static Throwable root(Throwable failure) {
        return failure.getCause() == null ? failure : root(failure.getCause());
    }
}
