package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import bios.persistence.cassandra.TestCassandra;
import com.typesafe.config.Config;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.LongStream;
import org.apache.pekko.persistence.PersistentRepr;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.ResourceLock;
import org.scalatest.tools.Runner;

@ResourceLock(TestCassandra.LOCK)
class CassandraJournalIT {
    private static Config config;
    private static JournalDriver journal;

    @BeforeAll static void open() {
        config = CassandraJournal.config().withFallback(TestCassandra.tables(
                Map.of("replay-rows", 7, "max-row-bytes", "4 MiB")));
        journal = new JournalDriver(config);
    }

    @AfterAll static void close() {
        journal.close();
    }

    private static void written(Optional<Throwable> outcome) {
        outcome.ifPresent(failure -> {
            throw new AssertionError(failure);
        });
    }

    private static List<Long> numbers(long from, long to) {
        return LongStream.rangeClosed(from, to).boxed().toList();
    }

    @Test void itPassesPekkosTestsOfAJournal() {
        assertTrue(Runner.run(new String[] {"-oW", "-s", CassandraJournalTck.class.getName()}));
    }

    @Test void itPassesPekkosTestsOfASnapshotStore() {
        assertTrue(Runner.run(new String[] {"-oW", "-s", CassandraSnapshotTck.class.getName()}));
    }

    @Test void ofTwoWritersOfOneNumberOneIsRefusedAndWritesNothing() {
        var a = journal.writer("two", "a");
        var b = journal.writer("two", "b");
        written(a.write(1, "a1", "a2"));
        written(b.write(3, "b3", "b4", "b5"));
        var refused = assertInstanceOf(JournalConflict.class, a.write(3, "a3").orElseThrow());
        assertTrue(refused.getMessage().contains("event 3 of two")
                && refused.getMessage().contains("writer a") && refused.getMessage().contains("writer b"),
                refused.getMessage());
        // also within the row of the other writer, and after its events
        assertInstanceOf(JournalConflict.class, a.write(4, "a4").orElseThrow());
        assertInstanceOf(JournalConflict.class, a.write(7, "a7").orElseThrow());
        assertEquals(List.of("a1", "a2", "b3", "b4", "b5"), journal.payloads("two"));
    }

    @Test void aStaleWriterIsRefusedEvenIfTheEventsThatItMissedAreDeleted() {
        var a = journal.writer("slept", "a");
        var b = journal.writer("slept", "b");
        written(a.write(1, "a1"));
        for (int i = 2; i < 9; i++) written(b.write(i, "b" + i));
        journal.delete("slept", 8);
        assertInstanceOf(JournalConflict.class, a.write(2, "a2").orElseThrow());
        assertEquals(List.of(), journal.payloads("slept"));
        assertEquals(8, journal.highest("slept"));
    }

    @Test void ofManyWritersAtTheSameMomentOneWins() throws Exception {
        List<Future<Optional<Throwable>>> outcomes = new ArrayList<>();
        try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int i = 0; i < 8; i++) {
                var writer = journal.writer("many", "w" + i);
                outcomes.add(threads.submit(() -> writer.write(1, "of " + writer)));
            }
        }
        int winners = 0;
        for (var outcome : outcomes) if (outcome.get().isEmpty()) winners++;
        assertEquals(1, winners);
        assertEquals(1, journal.payloads("many").size());
    }

    @Test void aWriteRepeatedByItsWriterSucceeds() {
        // As after a write of unknown outcome.
        var a = journal.writer("again", "a");
        written(a.write(1, "x"));
        written(a.write(1, "x"));
        assertInstanceOf(JournalConflict.class, a.write(1, "y").orElseThrow());
        assertInstanceOf(JournalConflict.class, journal.writer("again", "b").write(1, "x").orElseThrow());
        assertEquals(List.of("x"), journal.payloads("again"));
    }

    @Test void severalWritesOfOneRequestStopAtTheFirstThatIsRefused() {
        var a = journal.writer("stops", "a");
        written(a.writeEach(1, "a1", "a2", "a3"));
        written(journal.writer("stops", "b").write(4, "b4"));
        assertInstanceOf(JournalConflict.class, a.writeEach(4, "a4", "a5").orElseThrow());
        assertEquals(List.of("a1", "a2", "a3", "b4"), journal.payloads("stops"));
    }

    @Test void replayIsOrderedOverPagesAndHonoursItsBounds() {
        var random = new Random(1);
        var a = journal.writer("pages", "a");
        long next = 1;
        while (next <= 100) {
            int count = 1 + random.nextInt(4);
            written(a.write(next, JournalDriver.texts((int) next, (int) next + count - 1)));
            next += count;
        }
        long last = next - 1;
        assertEquals(numbers(1, last), journal.numbers("pages", 1, Long.MAX_VALUE, Long.MAX_VALUE));
        for (int i = 0; i < 30; i++) {
            long from = 1 + random.nextInt((int) last);
            long to = from + random.nextInt(20);
            long max = 1 + random.nextInt(10);
            assertEquals(numbers(from, Math.min(Math.min(to, last), from + max - 1)),
                    journal.numbers("pages", from, to, max), from + " " + to + " " + max);
        }
        for (PersistentRepr one : journal.replay("pages", 1, last, last))
            assertEquals("e" + one.sequenceNr(), one.payload());
    }

    @Test void deletionHidesTheDeletedEventsAndNeverLowersTheHighestNumber() {
        var a = journal.writer("deleted", "a");
        for (int row = 0; row < 10; row++)
            written(a.write(1 + 3 * row, JournalDriver.texts(1 + 3 * row, 3 + 3 * row)));
        for (long to : new long[] {2, 1, 7, 12, 5}) {
            journal.delete("deleted", to);
            long hidden = Math.max(to, to == 5 ? 12 : to == 1 ? 2 : to);
            assertEquals(numbers(hidden + 1, 30), journal.numbers("deleted", 1, 100, 100));
            assertEquals(30, journal.highest("deleted"));
        }
        journal.delete("deleted", Long.MAX_VALUE);
        assertEquals(List.of(), journal.numbers("deleted", 1, 100, 100));
        assertEquals(30, journal.highest("deleted"));
        written(journal.writer("deleted", "b").write(31, "e31"));
        assertEquals(List.of("e31"), journal.payloads("deleted"));
        assertEquals(0, journal.highest("never"));
        journal.delete("never", Long.MAX_VALUE);
        written(journal.writer("never", "a").write(1, "first"));
        assertEquals(List.of("first"), journal.payloads("never"));
    }

    @Test void deletedRowsAreGoneFromTheTable() {
        var a = journal.writer("gone", "a");
        for (int i = 1; i <= 20; i++) written(a.write(i, "e" + i));
        journal.delete("gone", 15);
        try (var connection = CassandraConnection.to(CassandraSettings.of(config))) {
            var cql = connection.await();
            assertEquals(5, Cql.await(cql.execute(
                    "SELECT first_seq FROM KEYSPACE.events WHERE persistence_id = ?", "gone")
                    .thenCompose(cql::allRows)).size());
        }
    }

    @Test void largeEventsAreStoredAndTooLargeOnesAreRefusedByName() {
        byte[] big = new byte[3 << 20];
        new Random(1).nextBytes(big);
        var a = journal.writer("big", "a");
        written(a.write(1, "small"));
        written(a.write(2, (Object) big));
        var refused = assertInstanceOf(EventTooLarge.class, a.write(3, big, big).orElseThrow());
        assertTrue(refused.getMessage().contains("max-row-bytes"), refused.getMessage());
        written(a.write(3, "after"));
        List<Object> found = journal.payloads("big");
        assertEquals(3, found.size());
        assertArrayEquals(big, (byte[]) found.get(1));
    }

    @Test void manyEntitiesWriteAtTheSameTime() throws Exception {
        List<Future<?>> writers = new ArrayList<>();
        try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int i = 0; i < 100; i++) {
                var writer = journal.writer("of-many-" + i, "w");
                writers.add(threads.submit(() -> {
                    for (int n = 1; n <= 10; n++) written(writer.write(n, "e" + n));
                }));
            }
        }
        for (var writer : writers) writer.get();
        for (int i = 0; i < 100; i++) assertEquals(
                numbers(1, 10), journal.numbers("of-many-" + i, 1, 100, 100));
    }

    @Test void anEventLostFromTheTableFailsTheRecovery() {
        var a = journal.writer("lost", "a");
        for (int i = 1; i <= 5; i++) written(a.write(i, "e" + i));
        try (var connection = CassandraConnection.to(CassandraSettings.of(config))) {
            var cql = connection.await();
            Cql.await(cql.execute(
                    "DELETE FROM KEYSPACE.events WHERE persistence_id = ? AND first_seq = 3", "lost"));
        }
        var failed = assertThrows(AssertionError.class,
                () -> journal.payloads("lost"));
        assertTrue(failed.getCause().getMessage().contains("events 3 to 3 of lost"), failed.getMessage());
    }
}
