package bios.persistence.journal;

import com.typesafe.config.ConfigFactory;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.persistence.JournalProtocol;
import org.apache.pekko.persistence.Persistence;
import org.apache.pekko.persistence.SnapshotProtocol;
import org.apache.pekko.persistence.SnapshotSelectionCriteria;

/// Deletes what a snapshot has made superfluous. Pekko itself does so only for snapshots taken every so
/// many events; ours are taken at events of our choice, so the journal is asked in the protocol that
/// Pekko's own entities use.
public final class JournalPruning {
    private JournalPruning() {}

    /// Deletes the events up to a snapshot and the snapshots before it. What fails is
    /// deleted after a later snapshot.
    ///
    /// @param snapshotSequenceNr the sequence number of a stored snapshot
    public static void before(ActorSystem<?> system, String persistenceId, long snapshotSequenceNr) {
        var persistence = Persistence.get(Adapter.toClassic(system));
        ActorRef nobody = Adapter.toClassic(system.ignoreRef());
        persistence.journalFor("", ConfigFactory.empty())
                .tell(new JournalProtocol.DeleteMessagesTo(persistenceId, snapshotSequenceNr, nobody),
                        nobody);
        deleteSnapshots(persistence, persistenceId, snapshotSequenceNr - 1, nobody);
    }

    /// Deletes all events and snapshots of an entity that has ended.
    public static void all(ActorSystem<?> system, String persistenceId) {
        before(system, persistenceId, Long.MAX_VALUE);
    }

    private static void deleteSnapshots(Persistence persistence, String persistenceId, long upTo,
            ActorRef nobody) {
        var criteria = SnapshotSelectionCriteria.create(upTo, Long.MAX_VALUE);
        persistence.snapshotStoreFor("", ConfigFactory.empty())
                .tell(new SnapshotProtocol.DeleteSnapshots(persistenceId, criteria), nobody);
    }
}
