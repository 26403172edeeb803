package bios.coordinator.session;

import bios.coordinator.DamagedEntities;
import bios.coordinator.run.TrainingRunSharding;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.time.InstantSource;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
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

/// Cluster sharding of sessions on the nodes with the role `coordinator`. Entities are remembered, so that a
/// session restarts after the loss of its node and ends in time.
public final class SessionSharding {
    /// The sharding type.
    public static final EntityTypeKey<SessionCommand> KEY =
            EntityTypeKey.create(SessionCommand.class, "session");
    /// The cluster role of nodes that host sessions.
    public static final String ROLE = "coordinator";

    /// The reply about a session that does not exist.
    public static final SessionReply UNKNOWN = new SessionReply.Refused(Session.UNKNOWN);

    private SessionSharding() {}

    /// The id of a session's entity in the journal.
    public static PersistenceId persistenceId(String session) {
        return PersistenceId.of(KEY.name(), session);
    }

    /// Starts the sharding of sessions: a shard region on nodes with the role, else a proxy.
    public static ActorRef<ShardingEnvelope<SessionCommand>> init(ActorSystem<?> system,
            SessionSettings settings, SnapshotReleaser releaser, InstantSource clock) {
        var entity = Entity.of(KEY, context -> {
            var persistenceId = PersistenceId.of(KEY.name(), context.getEntityId());
            return DamagedEntities.get(system).standIn(persistenceId.id(), SessionCommand.class,
                    SessionEntity::refuse).orElseGet(() -> SessionEntity.create(context.getEntityId(),
                            persistenceId, settings, releaser, clock, Optional.of(context.getShard())));
        });
        var sharding = ClusterShardingSettings.create(system).withRememberEntities(true)
                .withRememberEntitiesStoreMode(
                        ClusterShardingSettings.rememberEntitiesStoreModeEventSourced());
        return ClusterSharding.get(system).init(entity.withRole(ROLE).withSettings(sharding)
                .withMessageExtractor(new HashCodeMessageExtractor<>(settings.shards())));
    }

    /// The entity of session `id`. Sharding must be started on this node.
    public static EntityRef<SessionCommand> ref(ActorSystem<?> system, String id) {
        return ClusterSharding.get(system).entityRefFor(KEY, id);
    }

    /// A releaser that asks the entities of runs.
    ///
    /// @param timeout timeout of the ask of one run
    public static SnapshotReleaser releaser(ActorSystem<?> system, Duration timeout) {
        return (owner, run, session) -> {
            EntityRef<RunCommand> entity;
            try {
                entity = TrainingRunSharding.ref(system, run);
            } catch (IllegalStateException | IllegalArgumentException notServed) {
                // No node serves the base model now; tried again later.
                return CompletableFuture.completedFuture(false);
            }
            return entity.<RunReply>ask(replyTo -> new RunCommand.ReleaseSnapshots(owner, session, replyTo),
                    timeout).thenApply(reply -> reply instanceof RunReply.Done
                            || reply instanceof RunReply.Refused(var reason, _)
                            && reason == RunCommand.Reason.NOT_FOUND);
        };
    }
}
