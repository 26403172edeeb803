package bios.persistence.journal;

import com.typesafe.config.Config;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.actor.ActorSystem;
import org.apache.pekko.persistence.AtomicWrite;
import org.apache.pekko.persistence.DeleteMessagesSuccess;
import org.apache.pekko.persistence.JournalProtocol;
import org.apache.pekko.persistence.Persistence;
import org.apache.pekko.persistence.PersistentEnvelope;
import org.apache.pekko.persistence.PersistentRepr;
import org.apache.pekko.testkit.javadsl.TestKit;
import scala.jdk.javaapi.CollectionConverters;

/// Sends a journal the messages of entities, in its own actor system.
final class JournalDriver implements AutoCloseable {
    private static final Duration PATIENCE = Duration.ofMinutes(6);
    private final ActorSystem system;
    private final ActorRef journal;

    JournalDriver(Config config) {
        system = ActorSystem.create("journal", config);
        journal = Persistence.get(system).journalFor("", config);
    }

    @Override public void close() {
        TestKit.shutdownActorSystem(system);
    }

    ActorSystem system() {
        return system;
    }

    /// An incarnation of an entity, whose writes block.
    final class Writer {
        private final TestKit probe = new TestKit(system);
        private final String persistenceId;
        private final String uuid;

        Writer(String persistenceId, String uuid) {
            this.persistenceId = persistenceId;
            this.uuid = uuid;
        }

        /// Writes texts as one atomic write, the first under `number`; empty if it was acknowledged,
        /// otherwise the failure.
        Optional<Throwable> write(long number, Object... events) {
            send(number, events);
            return outcome(events.length);
        }

        void send(long number, Object... events) {
            List<PersistentRepr> all = IntStream.range(0, events.length)
                    .mapToObj(i -> event(number + i, events[i])).toList();
            tell(List.of(AtomicWrite.apply(CollectionConverters.asScala(all).toSeq())));
        }

        /// Several atomic writes in one request.
        Optional<Throwable> writeEach(long number, Object... events) {
            tell(IntStream.range(0, events.length)
                    .mapToObj(i -> (PersistentEnvelope) AtomicWrite.apply(event(number + i, events[i])))
                            .toList());
            return outcome(events.length);
        }

        private PersistentRepr event(long number, Object payload) {
            return PersistentRepr.apply(payload, number, persistenceId, "", false, ActorRef.noSender(), uuid);
        }

        private void tell(List<? extends PersistentEnvelope> writes) {
            journal.tell(new JournalProtocol.WriteMessages(CollectionConverters.asScala(
                    writes.stream().map(w -> (PersistentEnvelope) w).toList()).toSeq(), probe.getRef(), 1),
                    probe.getRef());
        }

        Optional<Throwable> outcome(int events) {
            Object first = probe.receiveOne(PATIENCE);
            Optional<Throwable> failure = first instanceof JournalProtocol.WriteMessagesFailed failed
                    ? Optional.of(failed.cause()) : Optional.empty();
            if (first == null) throw new AssertionError("no answer");
            for (int i = 0; i < events; i++) {
                Object each = probe.receiveOne(PATIENCE);
                boolean expected = failure.isPresent() ? each instanceof JournalProtocol.WriteMessageFailure
                        : each instanceof JournalProtocol.WriteMessageSuccess;
                if (!expected) throw new AssertionError("answered " + each + " after " + first);
            }
            return failure;
        }
    }

    Writer writer(String persistenceId, String uuid) {
        return new Writer(persistenceId, uuid);
    }

    List<PersistentRepr> replay(String persistenceId, long from, long to, long max) {
        var probe = new TestKit(system);
        journal.tell(new JournalProtocol.ReplayMessages(from, to, max, persistenceId, probe.getRef()),
                probe.getRef());
        var found = new ArrayList<PersistentRepr>();
        while (true) {
            switch (probe.receiveOne(PATIENCE)) {
                case JournalProtocol.ReplayedMessage one -> found.add(one.persistent());
                case JournalProtocol.RecoverySuccess _ -> {
                    return found;
                }
                case JournalProtocol.ReplayMessagesFailure failed ->
                    throw new AssertionError(failed.cause());
                case null, default -> throw new AssertionError("no answer");
            }
        }
    }

    List<Object> payloads(String persistenceId) {
        return replay(persistenceId, 1, Long.MAX_VALUE, Long.MAX_VALUE).stream()
                .map(PersistentRepr::payload).toList();
    }

    /// The sequence numbers that a replay returns.
    List<Long> numbers(String persistenceId, long from, long to, long max) {
        return replay(persistenceId, from, to, max).stream().map(PersistentRepr::sequenceNr).toList();
    }

    long highest(String persistenceId) {
        var probe = new TestKit(system);
        journal.tell(new JournalProtocol.ReplayMessages(1, Long.MAX_VALUE, 0, persistenceId, probe.getRef()),
                probe.getRef());
        return switch (probe.receiveOne(PATIENCE)) {
            case JournalProtocol.RecoverySuccess found -> found.highestSequenceNr();
            case JournalProtocol.ReplayMessagesFailure failed -> throw new AssertionError(failed.cause());
            case null, default -> throw new AssertionError("no answer");
        };
    }

    /// Deletes events and waits for the end of the deletion.
    void delete(String persistenceId, long to) {
        var probe = new TestKit(system);
        journal.tell(new JournalProtocol.DeleteMessagesTo(persistenceId, to, probe.getRef()), probe.getRef());
        Object answer = probe.receiveOne(PATIENCE);
        if (!(answer instanceof DeleteMessagesSuccess))
            throw new AssertionError("answered " + answer);
    }

    static Object[] texts(int from, int to) {
        return Stream.iterate(from, i -> i <= to, i -> i + 1).map(i -> (Object) ("e" + i)).toArray();
    }
}
