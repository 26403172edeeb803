package bios.coordinator.owner;

import bios.coordinator.DamagedEntities;
import bios.protocol.owner.OwnerCommand;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.sharding.typed.HashCodeMessageExtractor;
import org.apache.pekko.cluster.sharding.typed.ShardingEnvelope;
import org.apache.pekko.cluster.sharding.typed.javadsl.ClusterSharding;
import org.apache.pekko.cluster.sharding.typed.javadsl.Entity;
import org.apache.pekko.cluster.sharding.typed.javadsl.EntityRef;
import org.apache.pekko.cluster.sharding.typed.javadsl.EntityTypeKey;
import org.apache.pekko.persistence.typed.PersistenceId;

/// Cluster sharding of accounts on the nodes with the role `coordinator`.
public final class OwnerSharding {
    /// The sharding type.
    public static final EntityTypeKey<OwnerCommand> KEY = EntityTypeKey.create(OwnerCommand.class, "owner");
    private static final String ROLE = "coordinator";

    private OwnerSharding() {}

    /// The id of an account's entity in the journal.
    public static PersistenceId persistenceId(String account) {
        return PersistenceId.of(KEY.name(), account);
    }

    /// Starts the sharding of accounts.
    public static ActorRef<ShardingEnvelope<OwnerCommand>> init(ActorSystem<?> system,
            OwnerSettings settings) {
        var entity = Entity.of(KEY, context -> {
            var persistenceId = persistenceId(context.getEntityId());
            return DamagedEntities.get(system).standIn(persistenceId.id(), OwnerCommand.class,
                    OwnerEntity::refuse).orElseGet(() -> OwnerEntity.create(context.getEntityId(),
                            persistenceId, settings, Optional.of(context.getShard())));
        });
        return ClusterSharding.get(system).init(entity.withRole(ROLE)
                .withMessageExtractor(new HashCodeMessageExtractor<>(settings.shards())));
    }

    /// The entity of an account. Sharding must be started on this node.
    public static EntityRef<OwnerCommand> ref(ActorSystem<?> system, String account) {
        return ClusterSharding.get(system).entityRefFor(KEY, account);
    }
}
