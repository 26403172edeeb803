package bios.coordinator.simulation;

import bios.coordinator.run.RunEvent;
import bios.coordinator.run.RunStored;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Optional;
import java.util.TreeMap;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.persistence.AtomicWrite;
import org.apache.pekko.persistence.JournalProtocol;
import org.apache.pekko.persistence.PersistentRepr;
import org.apache.pekko.persistence.SaveSnapshotFailure;
import org.apache.pekko.persistence.SaveSnapshotSuccess;
import org.apache.pekko.persistence.SelectedSnapshot;
import org.apache.pekko.persistence.SnapshotMetadata;
import org.apache.pekko.persistence.SnapshotProtocol;
import scala.jdk.javaapi.CollectionConverters;
import scala.jdk.javaapi.OptionConverters;

/// The journal and the snapshots, which survive all processes. A write takes some time and is then stored
/// completely or not at all; its acknowledgement may be lost. A sequence number is written only once, so that
/// one of two writers fails.
final class Journal {
    /// The events of one run.
    private static final class Log {
        final TreeMap<Long, PersistentRepr> events = new TreeMap<>();
        final NavigableMap<Long, SelectedSnapshot> snapshots = new TreeMap<>();
        /// The writer that received the acknowledgement of a sequence number.
        final Map<Long, ActorRef> acknowledged = new HashMap<>();
        long highest;
    }

    private static final RunStored STORED = new RunStored();
    private final SimulatedCluster cluster;
    private final EventLoop loop;
    private final Map<String, Log> logs = new HashMap<>();
    /// Whether events are encoded and decoded when they are read.
    private final boolean bytes;

    Journal(SimulatedCluster cluster) {
        this.cluster = cluster;
        this.loop = cluster.loop;
        this.bytes = loop.oneIn(8);
    }

    private Log log(String id) {
        return logs.computeIfAbsent(id, _ -> new Log());
    }

    /// The number of stored events of a run.
    int length(String id) {
        return log(id).events.size();
    }

    // Events

    void write(JournalProtocol.WriteMessages write) {
        Optional<SimulatedCluster.Incarnation> writer = cluster.incarnation(write.persistentActor());
        // A message of a dead process may still arrive.
        if (writer.isEmpty() || writer.get().dead() && loop.oneIn(2)) return;
        writer.get().wrote = true;
        loop.in(delay(), () -> arrived(write, writer.get()));
    }

    private long delay() {
        return cluster.faults.hits(loop, 20) ? loop.between(100, 3_000) : loop.between(0, 5);
    }

    private void arrived(JournalProtocol.WriteMessages write, SimulatedCluster.Incarnation writer) {
        var all = new ArrayList<PersistentRepr>();
        for (var envelope : CollectionConverters.asJava(write.messages()))
            all.addAll(CollectionConverters.asJava(((AtomicWrite) envelope).payload()));
        Log log = log(all.getFirst().persistenceId());
        long first = all.getFirst().sequenceNr();
        boolean taken = first <= log.highest && cluster.mutation != Mutation.JOURNAL_HAS_NO_FENCE;
        boolean fails = cluster.faults.hits(loop, cluster.faults.journalFails);
        boolean kept = !taken && !(fails && loop.oneIn(2));
        loop.trace(() -> "journal " + writer + " writes " + first + " " + names(all)
                + (taken ? " TAKEN" : "") + (fails ? " FAILS" : "") + (kept ? "" : " not kept"));
        boolean forgets = cluster.mutation == Mutation.JOURNAL_FORGETS_A_WRITE && loop.oneIn(20);
        if (kept && !forgets) keep(log, all, writer);
        if (forgets) log.highest = Math.max(log.highest, all.getLast().sequenceNr());
        if (taken || fails) refuse(write, all, taken ? "the number is taken" : "the journal does not answer");
        else acknowledge(write, all, log);
    }

    private static String names(List<PersistentRepr> all) {
        return all.stream().map(r -> shown(r.payload())).toList().toString();
    }

    private static String shown(Object event) {
        return switch (event) {
            case RunEvent.OperationAccepted e -> "accepted " + e.position() + " seq " + e.seq() + " "
                    + e.operation().kind();
            case RunEvent.LoadResolved e -> "resolved " + e.position();
            case RunEvent.CheckpointCommitted e -> "committed " + e.position() + " "
                    + e.manifest().name() + " " + e.manifest().contentId().substring(0, 6);
            case RunEvent.RecoveryPointReached e -> "point " + e.position() + " "
                    + e.state().id().sha256().substring(0, 6)
                    + e.results().map(r -> " results " + r.id().sha256().substring(0, 6)).orElse("");
            case RunEvent.BlobsFreed e -> "freed " + e.blobs().size();
            case RunEvent.RunCreated _ -> "created";
            default -> event.toString();
        };
    }

    private void keep(Log log, List<PersistentRepr> all, SimulatedCluster.Incarnation writer) {
        for (PersistentRepr repr : all) {
            if (repr.sequenceNr() > log.highest + 1)
                cluster.violated(writer + " writes number " + repr.sequenceNr() + " behind " + log.highest);
            if (log.events.containsKey(repr.sequenceNr()) || repr.sequenceNr() <= log.highest) {
                log.events.put(repr.sequenceNr(), repr);
                continue; // only in the mutation without a fence
            }
            log.highest = repr.sequenceNr();
            log.events.put(repr.sequenceNr(), repr);
            cluster.oracle(writer.run).happened((RunEvent) repr.payload());
        }
    }

    private void refuse(JournalProtocol.WriteMessages write, List<PersistentRepr> all, String why) {
        var cause = new IOException(why);
        tell(write.persistentActor(), new JournalProtocol.WriteMessagesFailed(cause, all.size()));
        for (PersistentRepr repr : all)
            tell(write.persistentActor(),
                    new JournalProtocol.WriteMessageFailure(repr, cause, write.actorInstanceId()));
    }

    private void acknowledge(JournalProtocol.WriteMessages write, List<PersistentRepr> all, Log log) {
        tell(write.persistentActor(), JournalProtocol.WriteMessagesSuccessful$.MODULE$);
        for (PersistentRepr repr : all) {
            ActorRef other = log.acknowledged.putIfAbsent(repr.sequenceNr(), write.persistentActor());
            if (other != null && !other.equals(write.persistentActor()))
                cluster.violated("two writers were told that they wrote number " + repr.sequenceNr());
            tell(write.persistentActor(),
                    new JournalProtocol.WriteMessageSuccess(repr, write.actorInstanceId()));
        }
    }

    private static void tell(ActorRef to, Object message) {
        to.tell(message, ActorRef.noSender());
    }

    void replay(JournalProtocol.ReplayMessages replay) {
        loop.in(delay(), () -> {
            ActorRef to = replay.persistentActor();
            if (cluster.faults.hits(loop, cluster.faults.journalFails)) {
                tell(to, new JournalProtocol.ReplayMessagesFailure(new IOException("unreadable now")));
                return;
            }
            Log log = log(replay.persistenceId());
            long last = cluster.mutation == Mutation.JOURNAL_LOSES_ITS_TAIL && loop.oneIn(3)
                    ? log.highest - 1 : replay.toSequenceNr();
            long left = replay.max();
            for (PersistentRepr repr : log.events.tailMap(replay.fromSequenceNr(), true).values()) {
                if (left-- <= 0 || repr.sequenceNr() > last) break;
                tell(to, new JournalProtocol.ReplayedMessage(
                        repr.withPayload(read(repr.payload()))));
            }
            tell(to, new JournalProtocol.RecoverySuccess(log.highest));
        });
    }

    private Object read(Object stored) {
        return bytes ? STORED.fromBinary(STORED.toBinary(stored), STORED.manifest(stored)) : stored;
    }

    void delete(JournalProtocol.DeleteMessagesTo delete) {
        loop.in(delay(), () -> log(delete.persistenceId()).events
                .headMap(Math.min(delete.toSequenceNr(), log(delete.persistenceId()).highest), true).clear());
    }

    // Snapshots

    void save(SnapshotProtocol.SaveSnapshot save, ActorRef replyTo) {
        SnapshotMetadata metadata = save.metadata();
        loop.in(delay(), () -> {
            boolean fails = cluster.faults.hits(loop, cluster.faults.snapshotFails);
            if (!fails || loop.oneIn(2))
                log(metadata.persistenceId()).snapshots.put(metadata.sequenceNr(),
                        new SelectedSnapshot(metadata, save.snapshot()));
            loop.trace(() -> "snapshot at " + metadata.sequenceNr() + (fails ? " FAILS" : ""));
            tell(replyTo, fails ? new SaveSnapshotFailure(metadata, new IOException("no snapshot now"))
                    : new SaveSnapshotSuccess(metadata));
        });
    }

    void load(SnapshotProtocol.LoadSnapshot load, ActorRef replyTo) {
        loop.in(delay(), () -> {
            if (cluster.faults.hits(loop, cluster.faults.journalFails)) {
                tell(replyTo, new SnapshotProtocol.LoadSnapshotFailed(new IOException("unreadable now")));
                return;
            }
            var found = log(load.persistenceId()).snapshots
                    .floorEntry(Math.min(load.toSequenceNr(), load.criteria().maxSequenceNr()));
            Optional<SelectedSnapshot> selected = found == null ? Optional.empty() : Optional.of(
                    new SelectedSnapshot(found.getValue().metadata(), read(found.getValue().snapshot())));
            tell(replyTo, new SnapshotProtocol.LoadSnapshotResult(OptionConverters.toScala(selected),
                    load.toSequenceNr()));
        });
    }

    void delete(SnapshotProtocol.DeleteSnapshots delete) {
        loop.in(delay(), () -> log(delete.persistenceId()).snapshots
                .headMap(delete.criteria().maxSequenceNr(), true).clear());
    }
}
