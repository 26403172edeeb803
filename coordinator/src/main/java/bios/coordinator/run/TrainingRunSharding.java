package bios.coordinator.run;

import bios.coordinator.DamagedEntities;
import bios.coordinator.StoredEntities;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.sharding.typed.ClusterShardingSettings;
import org.apache.pekko.cluster.sharding.typed.HashCodeMessageExtractor;
import org.apache.pekko.cluster.sharding.typed.ShardingEnvelope;
import org.apache.pekko.cluster.sharding.typed.javadsl.ClusterSharding;
import org.apache.pekko.cluster.sharding.typed.javadsl.Entity;
import org.apache.pekko.cluster.sharding.typed.javadsl.EntityRef;
import org.apache.pekko.cluster.sharding.typed.javadsl.EntityTypeKey;
import org.apache.pekko.persistence.typed.PersistenceId;

/// Cluster sharding of runs: the runs of each base model are one sharding type, `run-<slug>`, on the nodes
/// with the role `serves-<slug>`. A run that was not passivated is started again on the node to which its
/// shard moves.
public final class TrainingRunSharding {
    private TrainingRunSharding() {}

    /// The sharding type of a base model's runs.
    public static EntityTypeKey<RunCommand> key(String slug) {
        return EntityTypeKey.create(RunCommand.class, "run-" + slug);
    }

    /// The cluster role of nodes that serve a base model.
    public static String role(String slug) {
        return "serves-" + slug;
    }

    /// The id of a run's entity in the journal.
    public static PersistenceId persistenceId(RunId run) {
        return PersistenceId.of(key(run.slug()).name(), run.value());
    }

    /// The reply about a run that does not exist.
    public static RunReply unknown(RunId run) {
        return new RunReply.Refused(Reason.NOT_FOUND, "there is no run " + run);
    }

    /// Hosts runs of a base model on this node, which must have the role.
    public static ActorRef<ShardingEnvelope<RunCommand>> init(ActorSystem<?> system, String slug,
            RunEnvironment environment) {
        return init(system, slug, role(slug), environment);
    }

    /// Hosts runs of a base model on this node.
    ///
    /// @param role of all nodes that host them, this one included: [#role] in a cluster
    public static ActorRef<ShardingEnvelope<RunCommand>> init(ActorSystem<?> system, String slug, String role,
            RunEnvironment environment) {
        // Any message starts the entity of a passivated run.
        RunEnvironment restarting = environment.withStarter(run -> ref(system, run).tell(
                new RunCommand.Describe("", system.ignoreRef())));
        var entity = Entity.of(key(slug), context -> {
            var persistenceId = PersistenceId.of(context.getEntityTypeKey().name(), context.getEntityId());
            return DamagedEntities.get(system).standIn(persistenceId.id(), RunCommand.class,
                    DamagedRun::refuse).orElseGet(() -> TrainingRunEntity.create(
                            new RunId(context.getEntityId()), persistenceId, restarting,
                            Optional.of(context.getShard())));
        });
        return ClusterSharding.get(system).init(configured(system, role, entity, environment.settings()));
    }

    /// Starts a proxy for the runs of a base model on this node, which does not have the role. Needed once
    /// per slug before [#ref].
    public static ActorRef<ShardingEnvelope<RunCommand>> initProxy(ActorSystem<?> system, String slug,
            RunSettings settings) {
        var entity = Entity.of(key(slug), context -> {
            throw new IllegalStateException("run " + context.getEntityId()
                    + " does not belong on a node without the role " + role(slug));
        });
        return ClusterSharding.get(system).init(configured(system, role(slug), entity, settings));
    }

    private static Entity<RunCommand, ShardingEnvelope<RunCommand>> configured(ActorSystem<?> system,
            String role, Entity<RunCommand, ShardingEnvelope<RunCommand>> entity, RunSettings settings) {
        var sharding = ClusterShardingSettings.create(system).withRememberEntities(true)
                .withRememberEntitiesStoreMode(
                        ClusterShardingSettings.rememberEntitiesStoreModeEventSourced());
        return entity.withRole(role).withSettings(sharding).withStopMessage(new RunCommand.Leave())
                .withMessageExtractor(new HashCodeMessageExtractor<>(settings.shards()));
    }

    /// The reference to `run` on any node. The sharding of its slug must be started on this node.
    public static EntityRef<RunCommand> ref(ActorSystem<?> system, RunId run) {
        return ClusterSharding.get(system).entityRefFor(key(run.slug()), run.value());
    }

    /// A resolver that asks the entities of other runs for their checkpoints.
    ///
    /// @param timeout timeout of one ask
    public static CheckpointResolver resolver(ActorSystem<?> system, Duration timeout) {
        return new CheckpointResolver() {
            @Override public CompletionStage<RunReply> resolve(String owner, CheckpointPath path) {
                return ask(path.run(), path + " belongs to a base model that is not served",
                        replyTo -> new RunCommand.Resolve(owner, path, replyTo));
            }

            @Override public CompletionStage<RunReply> keepWeights(String owner, BlobId adapter,
                    boolean loaded) {
                return ask(BlobScope.run(adapter), adapter + " belongs to a base model that is not served",
                        replyTo -> new RunCommand.KeepWeights(owner, adapter, loaded, replyTo));
            }

            private CompletionStage<RunReply> ask(RunId id, String otherwise,
                    Function<ActorRef<RunReply>, RunCommand> command) {
                EntityRef<RunCommand> run;
                try {
                    run = ref(system, id);
                } catch (IllegalStateException | IllegalArgumentException unknownType) {
                    return CompletableFuture.completedFuture(
                            new RunReply.Refused(Reason.NOT_FOUND, otherwise));
                }
                return StoredEntities.get(system).exists(persistenceId(id)).thenCompose(exists -> exists
                        ? run.<RunReply>ask(command::apply, timeout)
                        : CompletableFuture.completedFuture(unknown(id)));
            }
        };
    }
}
