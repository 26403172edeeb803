package bios.coordinator;

import com.typesafe.config.ConfigFactory;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Extension;
import org.apache.pekko.actor.typed.ExtensionId;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.pattern.Patterns;
import org.apache.pekko.persistence.JournalProtocol;
import org.apache.pekko.persistence.Persistence;
import org.apache.pekko.persistence.SnapshotProtocol;
import org.apache.pekko.persistence.SnapshotSelectionCriteria;
import org.apache.pekko.persistence.typed.PersistenceId;

/// Tells whether an entity is in the journal. A command for one that is not, because its id was invented, is
/// refused without starting it: sharding would remember it, with rows in the journal, until it has stopped.
public final class StoredEntities implements Extension {
    private static final ExtensionId<StoredEntities> ID = new ExtensionId<>() {
        @Override public StoredEntities createExtension(ActorSystem<?> system) {
            return new StoredEntities(system);
        }
    };
    private static final Duration LIMIT = Duration.ofSeconds(3);
    private static final int MAX_KNOWN = 100_000;

    private final ActorRef journal;
    private final ActorRef snapshots;
    private final Set<PersistenceId> known = ConcurrentHashMap.newKeySet();

    private StoredEntities(ActorSystem<?> system) {
        var persistence = Persistence.get(Adapter.toClassic(system));
        journal = persistence.journalFor("", ConfigFactory.empty());
        snapshots = persistence.snapshotStoreFor("", ConfigFactory.empty());
    }

    /// Those of the journal of `system`.
    public static StoredEntities get(ActorSystem<?> system) {
        return system.registerExtension(ID);
    }

    /// Whether the journal has events or a snapshot of the entity. If the journal does not answer, yes: the
    /// entity finds out.
    public CompletionStage<Boolean> exists(PersistenceId id) {
        if (known.contains(id)) return CompletableFuture.completedFuture(true);
        return hasEvents(id).thenCompose(found -> found ? CompletableFuture.completedFuture(true)
                : hasSnapshot(id)).exceptionally(_ -> true).thenApply(found -> {
                    if (found) remember(id);
                    return found;
                });
    }

    private void remember(PersistenceId id) {
        if (known.size() >= MAX_KNOWN) known.clear();
        known.add(id);
    }

    /// A replay of no event tells the highest number.
    private CompletionStage<Boolean> hasEvents(PersistenceId id) {
        return Patterns.askWithReplyTo(journal, replyTo ->
                new JournalProtocol.ReplayMessages(1, 0, 0, id.id(), replyTo), LIMIT).thenApply(answer ->
                !(answer instanceof JournalProtocol.RecoverySuccess found) || found.highestSequenceNr() > 0);
    }

    private CompletionStage<Boolean> hasSnapshot(PersistenceId id) {
        return Patterns.ask(snapshots, new SnapshotProtocol.LoadSnapshot(id.id(),
                SnapshotSelectionCriteria.latest(), Long.MAX_VALUE), LIMIT).thenApply(answer ->
                !(answer instanceof SnapshotProtocol.LoadSnapshotResult found)
                        || found.snapshot().isDefined());
    }
}
