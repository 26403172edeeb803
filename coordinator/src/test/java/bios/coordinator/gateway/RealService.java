package bios.coordinator.gateway;

import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.fleet.ModelDirectory;
import bios.coordinator.owner.OwnerSettings;
import bios.coordinator.owner.OwnerSharding;
import bios.coordinator.owner.SamplingUsageReporter;
import bios.coordinator.run.RunSettings;
import bios.coordinator.run.RunEnvironment;
import bios.coordinator.run.TrainingRunSharding;
import bios.coordinator.sampling.SamplingRouter;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.coordinator.sampling.SamplingSettings;
import bios.coordinator.sampling.PersistentSampleRequestStore;
import bios.coordinator.session.SessionSettings;
import bios.coordinator.session.SessionSharding;
import bios.persistence.Storage;
import bios.persistence.blob.BlobStore;
import bios.protocol.model.ModelName;
import bios.protocol.sampling.SamplingCommand;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.cluster.typed.Join;
import org.apache.pekko.http.javadsl.ServerBinding;

/// A gateway with the real entities of runs and sessions, the real router and the embedded stores in one
/// process. Only the engine is a [ScriptedEngine].
final class RealService extends TestClient implements AutoCloseable {
    private static final ModelName MODEL = TestService.MODEL.name();
    private static final Duration ASK_LIMIT = Duration.ofSeconds(10);

    final GatewaySettings settings;
    final List<Endpoint> endpoints;
    final InstantSource clock = InstantSource.system();
    private final Storage storage;
    private final ActorTestKit kit;
    private final ServerBinding binding;
    private SamplingUsageReporter usage;
    private final ExecutorService blocking = Executors.newVirtualThreadPerTaskExecutor();

    RealService(Path folder, Accounts accounts, String gatewaySettings) {
        Config given = ConfigFactory.parseString("""
                pekko.loglevel = WARNING
                pekko.actor.provider = cluster
                pekko.remote.artery.canonical { hostname = "127.0.0.1", port = 0 }
                pekko.cluster { roles = ["coordinator", "%s"], jmx.enabled = off, downing-provider-class =
                        "" }
                pekko.coordinated-shutdown.exit-jvm = off
                bios.storage.folder = "%s"
                bios.run { shards = 4, attempts = 1 }
                bios.session.shards = 4
                bios.owner { shards = 4, count-every = 100 ms }
                """.formatted(TrainingRunSharding.role(MODEL.slug()), folder));
        Config config = Storage.withPekkoPersistence(given).withFallback(ConfigFactory.load()).resolve();
        storage = Storage.open(config);
        kit = ActorTestKit.create("ownership", config);
        var cluster = Cluster.get(kit.system());
        cluster.manager().tell(Join.create(cluster.selfMember().address()));
        settings = GatewaySettings.of(ConfigFactory.parseString(gatewaySettings)
                .withFallback(config.getConfig("bios.gateway")));
        Gateway.Dependencies parts = parts(accounts, config);
        endpoints = Gateway.endpoints(
                parts, settings, new GatewayServices(kit.system(), parts, settings, blocking),
                new PublicUrl(Optional.empty(), "127.0.0.1", () -> 0), blocking);
        binding = Gateway.bind(kit.system(), "127.0.0.1", 0, parts, settings).toCompletableFuture().join();
    }

    private Gateway.Dependencies parts(Accounts accounts, Config config) {
        var system = kit.system();
        var engine = kit.spawn(ScriptedEngine.create(storage.blobs()));
        var runs = RunSettings.from(config);
        TrainingRunSharding.init(
                system, MODEL.slug(), RunEnvironment.of(engine, storage.blobs(), storage.index(),
                TrainingRunSharding.resolver(system, ASK_LIMIT), clock, runs));
        SessionSharding.init(system, SessionSettings.from(config),
                SessionSharding.releaser(system, ASK_LIMIT), clock);
        EngineDirectory directory = EngineDirectory.EMPTY.withEngine(engine,
                new EngineReply.Description(List.of(TestService.MODEL), 0, 0, List.of()));
        Behavior<ModelDirectory.Command> modelDirectory = Behaviors.receiveMessage(command -> {
            if (command instanceof ModelDirectory.Subscribe(var subscriber)) subscriber.tell(directory);
            return Behaviors.same();
        });
        var memory = RequestMemory.of(settings);
        var sharded = new ShardedRuns(system, runs, memory);
        var owners = OwnerSettings.from(config);
        OwnerSharding.init(system, owners);
        var shardedOwners = new ShardedOwners(system, memory);
        usage = new SamplingUsageReporter("r1-" + UUID.randomUUID(), clock, shardedOwners::count);
        system.scheduler().scheduleWithFixedDelay(owners.countEvery(), owners.countEvery(), usage::flush,
                system.executionContext());
        ActorRef<SamplingCommand> router = kit.spawn(SamplingRouter.create("r1",
                SamplingSettings.of(config.getConfig("bios.sampling")), kit.spawn(modelDirectory),
                new PersistentSampleRequestStore(storage.samplingTasks(), blocking),
                sharded::keepWeights, usage,
                System::nanoTime));
        return new Gateway.Dependencies(accounts, sharded, new ShardedSessions(system, memory), shardedOwners,
                () -> directory, router, storage.blobs(), storage.index(), () ->
                true, clock, UUID::randomUUID,
                new SecureRandom(new byte[] {1}), memory);
    }

    /// The counts of sampling are at the accounts.
    void counted() {
        usage.flush().toCompletableFuture().join();
    }

    /// The blobs below `scope`.
    List<BlobStore.ListedBlob> blobs(String scope) {
        return storage.blobs().list(scope);
    }

    @Override int port() {
        return binding.localAddress().getPort();
    }

    @Override public void close() {
        closeClient();
        kit.shutdownTestKit();
        storage.close();
        blocking.close();
    }
}
