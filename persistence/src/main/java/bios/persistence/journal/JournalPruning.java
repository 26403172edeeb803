package bios.persistence.journal;

import com.typesafe.config.ConfigFactory;
import java.time.Duration;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Extension;
import org.apache.pekko.actor.typed.ExtensionId;
import org.apache.pekko.actor.typed.Props;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.pattern.Patterns;
import org.apache.pekko.persistence.DeleteMessagesSuccess;
import org.apache.pekko.persistence.JournalProtocol;
import org.apache.pekko.persistence.Persistence;
import org.apache.pekko.persistence.SnapshotProtocol;
import org.apache.pekko.persistence.SnapshotSelectionCriteria;

/// Deletes the events and snapshots that a newer snapshot replaces. Pekko does so only for snapshots at fixed
/// intervals; entities of Bios choose the events at which they take snapshots, so this sends the messages
/// that Pekko's own entities send to the journal and the snapshot store.
public final class JournalPruning {
    /// Stands for all events of an entity, to be deleted without a snapshot that replaces them.
    static final long ALL = Long.MAX_VALUE;

    private static final Duration DELETION_LIMIT = Duration.ofMinutes(10);

    private JournalPruning() {}

    /// Deletes the events up to a snapshot and the snapshots before it. If a deletion fails, the deletion
    /// after the next snapshot includes its events.
    ///
    /// @param snapshotSequenceNr the sequence number of a stored snapshot
    public static void before(ActorSystem<?> system, String persistenceId, long snapshotSequenceNr) {
        var persistence = Persistence.get(Adapter.toClassic(system));
        ActorRef ignored = Adapter.toClassic(system.ignoreRef());
        persistence.journalFor("", ConfigFactory.empty())
                .tell(new JournalProtocol.DeleteMessagesTo(persistenceId, snapshotSequenceNr, ignored),
                        ignored);
        deleteSnapshots(persistence, persistenceId, snapshotSequenceNr - 1, ignored);
    }

    /// The same for the snapshot before `snapshotSequenceNr`, if there is one.
    ///
    /// @param snapshotSequenceNr the sequence number of the newest snapshot
    public static void beforePrevious(ActorSystem<?> system, String persistenceId, long snapshotSequenceNr) {
        var criteria = SnapshotSelectionCriteria.latest();
        Persistence.get(Adapter.toClassic(system)).snapshotStoreFor("", ConfigFactory.empty())
                .tell(new SnapshotProtocol.LoadSnapshot(persistenceId, criteria, snapshotSequenceNr - 1),
                        system.registerExtension(Previous.ID).finder);
    }

    /// The actor that prunes before each snapshot that it is sent. An actor, because the callbacks of an ask
    /// run on a thread that no dispatcher of the system knows.
    private static final class Previous implements Extension {
        private static final ExtensionId<Previous> ID = new ExtensionId<>() {
            @Override public Previous createExtension(ActorSystem<?> system) {
                return new Previous(system);
            }
        };
        private final ActorRef finder;

        private Previous(ActorSystem<?> system) {
            finder = Adapter.toClassic(system.systemActorOf(Behaviors.receiveMessage(answer -> {
                if (answer instanceof SnapshotProtocol.LoadSnapshotResult found
                        && found.snapshot().isDefined()) {
                    var snapshot = found.snapshot().get().metadata();
                    before(system, snapshot.persistenceId(), snapshot.sequenceNr());
                }
                return Behaviors.same();
            }), "journal-pruning", Props.empty()));
        }
    }

    /// Deletes all events and snapshots of an entity that is not used any more.
    public static void all(ActorSystem<?> system, String persistenceId) {
        var persistence = Persistence.get(Adapter.toClassic(system));
        ActorRef ignored = Adapter.toClassic(system.ignoreRef());
        // First the events: without its snapshot an entity cannot read what is left of them.
        Patterns.askWithReplyTo(persistence.journalFor("", ConfigFactory.empty()), replyTo ->
                new JournalProtocol.DeleteMessagesTo(persistenceId, ALL, replyTo), DELETION_LIMIT)
                .thenAccept(answer -> {
                    if (answer instanceof DeleteMessagesSuccess)
                        deleteSnapshots(persistence, persistenceId, ALL - 1, ignored);
                });
    }

    private static void deleteSnapshots(Persistence persistence, String persistenceId, long upTo,
            ActorRef ignored) {
        var criteria = SnapshotSelectionCriteria.create(upTo, Long.MAX_VALUE);
        persistence.snapshotStoreFor("", ConfigFactory.empty())
                .tell(new SnapshotProtocol.DeleteSnapshots(persistenceId, criteria), ignored);
    }
}
