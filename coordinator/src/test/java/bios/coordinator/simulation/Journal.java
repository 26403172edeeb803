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

/// What outlives all processes of entities: events and snapshots. A write takes its time and is then there as
/// a whole or not at all; whether its writer is told is another matter. A number that was written once is
/// never written again, so that of two writers, one fails.
final class Journal {
    /// The events of one run.
    private static final class Log {
        final TreeMap<Long, PersistentRepr> events = new TreeMap<>();
        final NavigableMap<Long, SelectedSnapshot> snapshots = new TreeMap<>();
        /// Who was told that it had written a number.
        final Map<Long, ActorRef> acknowledged = new HashMap<>();
        long highest;
    }

    private static final RunStored STORED = new RunStored();
    private final World world;
    private final Stage stage;
    private final Map<String, Log> logs = new HashMap<>();
    /// Whether what is read was bytes in between.
    private final boolean bytes;

    Journal(World world) {
        this.world = world;
        this.stage = world.stage;
        this.bytes = stage.oneIn(8);
    }

    private Log log(String id) {
        return logs.computeIfAbsent(id, _ -> new Log());
    }

    /// How many events of a run are still there.
    int length(String id) {
        return log(id).events.size();
    }

    // Events

    void write(JournalProtocol.WriteMessages write) {
        Optional<World.Incarnation> writer = world.incarnation(write.persistentActor());
        // What a dead process had sent may still arrive.
        if (writer.isEmpty() || writer.get().dead() && stage.oneIn(2)) return;
        writer.get().wrote = true;
        stage.in(delay(), () -> arrived(write, writer.get()));
    }

    private long delay() {
        return world.faults.hits(stage, 20) ? stage.between(100, 3_000) : stage.between(0, 5);
    }

    private void arrived(JournalProtocol.WriteMessages write, World.Incarnation writer) {
        var all = new ArrayList<PersistentRepr>();
        for (var envelope : CollectionConverters.asJava(write.messages()))
            all.addAll(CollectionConverters.asJava(((AtomicWrite) envelope).payload()));
        Log log = log(all.getFirst().persistenceId());
        long first = all.getFirst().sequenceNr();
        boolean taken = first <= log.highest && world.mutation != Mutation.JOURNAL_HAS_NO_FENCE;
        boolean fails = !world.ledger(writer.run).inLastAttempt()
                && world.faults.hits(stage, world.faults.journalFails);
        boolean kept = !taken && !(fails && stage.oneIn(2));
        stage.trace(() -> "journal " + writer + " writes " + first + " " + names(all)
                + (taken ? " TAKEN" : "") + (fails ? " FAILS" : "") + (kept ? "" : " not kept"));
        boolean forgets = world.mutation == Mutation.JOURNAL_FORGETS_A_WRITE && stage.oneIn(20);
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

    private void keep(Log log, List<PersistentRepr> all, World.Incarnation writer) {
        for (PersistentRepr repr : all) {
            if (repr.sequenceNr() > log.highest + 1)
                world.violated(writer + " writes number " + repr.sequenceNr() + " behind " + log.highest);
            if (log.events.containsKey(repr.sequenceNr()) || repr.sequenceNr() <= log.highest) {
                log.events.put(repr.sequenceNr(), repr);
                continue; // only with a journal without a fence
            }
            log.highest = repr.sequenceNr();
            log.events.put(repr.sequenceNr(), repr);
            world.ledger(writer.run).happened((RunEvent) repr.payload());
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
                world.violated("two writers were told that they wrote number " + repr.sequenceNr());
            tell(write.persistentActor(),
                    new JournalProtocol.WriteMessageSuccess(repr, write.actorInstanceId()));
        }
    }

    private static void tell(ActorRef to, Object message) {
        to.tell(message, ActorRef.noSender());
    }

    void replay(JournalProtocol.ReplayMessages replay) {
        stage.in(delay(), () -> {
            ActorRef to = replay.persistentActor();
            if (world.faults.hits(stage, world.faults.journalFails)) {
                tell(to, new JournalProtocol.ReplayMessagesFailure(new IOException("unreadable now")));
                return;
            }
            Log log = log(replay.persistenceId());
            long last = world.mutation == Mutation.JOURNAL_LOSES_ITS_TAIL && stage.oneIn(3)
                    ? log.highest - 1 : replay.toSequenceNr();
            long left = replay.max();
            for (PersistentRepr repr : log.events.tailMap(replay.fromSequenceNr(), true).values()) {
                if (left-- <= 0 || repr.sequenceNr() > last) break;
                if (repr.payload() instanceof RunEvent.OperationAttempted(var at, _)
                        && world.mutation == Mutation.JOURNAL_LOSES_ATTEMPTS)
                    tell(to, new JournalProtocol.ReplayedMessage(
                            repr.withPayload(new RunEvent.ReplayFinished(at))));
                else tell(to, new JournalProtocol.ReplayedMessage(
                        repr.withPayload(read(repr.payload()))));
            }
            tell(to, new JournalProtocol.RecoverySuccess(log.highest));
        });
    }

    private Object read(Object stored) {
        return bytes ? STORED.fromBinary(STORED.toBinary(stored), STORED.manifest(stored)) : stored;
    }

    void delete(JournalProtocol.DeleteMessagesTo delete) {
        stage.in(delay(), () -> log(delete.persistenceId()).events
                .headMap(Math.min(delete.toSequenceNr(), log(delete.persistenceId()).highest), true).clear());
    }

    // Snapshots

    void save(SnapshotProtocol.SaveSnapshot save, ActorRef replyTo) {
        SnapshotMetadata metadata = save.metadata();
        stage.in(delay(), () -> {
            boolean fails = world.faults.hits(stage, world.faults.snapshotFails);
            if (!fails || stage.oneIn(2))
                log(metadata.persistenceId()).snapshots.put(metadata.sequenceNr(),
                        new SelectedSnapshot(metadata, save.snapshot()));
            stage.trace(() -> "snapshot at " + metadata.sequenceNr() + (fails ? " FAILS" : ""));
            tell(replyTo, fails ? new SaveSnapshotFailure(metadata, new IOException("no snapshot now"))
                    : new SaveSnapshotSuccess(metadata));
        });
    }

    void load(SnapshotProtocol.LoadSnapshot load, ActorRef replyTo) {
        stage.in(delay(), () -> {
            if (world.faults.hits(stage, world.faults.journalFails)) {
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
        stage.in(delay(), () -> log(delete.persistenceId()).snapshots
                .headMap(delete.criteria().maxSequenceNr(), true).clear());
    }
}
