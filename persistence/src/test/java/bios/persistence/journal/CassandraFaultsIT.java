package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.Storage;
import bios.persistence.cassandra.CassandraSchema;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.CassandraUnavailable;
import bios.persistence.cassandra.LocalCassandra;
import bios.persistence.cassandra.TestCassandra;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.LongStream;
import org.apache.pekko.persistence.PersistentRepr;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/// Tests a Cassandra that is killed, starts late or does not start.
class CassandraFaultsIT {
    private static final int WRITERS = 20;
    private static LocalCassandra node;

    @BeforeAll static void start() {
        node = TestCassandra.start();
        CassandraSchema.create(CassandraSettings.of(config("30 s")));
    }

    @AfterAll static void end() {
        node.kill();
        TestCassandra.delete(node.settings().folder());
    }

    private static Config config(String retryFor) {
        return CassandraJournal.config().withFallback(TestCassandra.config(node, "faults",
                Map.of("retry-for", retryFor, "connect-within", "1 minute")));
    }

    private static void killAndStartAgain() {
        node.kill();
        node = LocalCassandra.start(node.settings());
    }

    /// Writes one event after the other until it is stopped; returns the number of acknowledged events.
    private static long writeUntil(AtomicBoolean stop, JournalDriver.Writer writer, AtomicLong acknowledged) {
        long number = 1;
        while (!stop.get() && writer.write(number, "e" + number).isEmpty()) {
            number++;
            acknowledged.incrementAndGet();
        }
        return number - 1;
    }

    /// Waits for more acknowledged events; throws if a writer ends before that.
    private static void awaitMore(List<Future<Long>> writers, AtomicLong acknowledged, long more)
            throws Exception {
        long goal = acknowledged.get() + more;
        while (acknowledged.get() < goal) {
            for (Future<Long> writer : writers)
                if (writer.isDone()) throw new AssertionError("a writer gave up after " + writer.get());
            Thread.sleep(10);
        }
    }

    @Test void killsUnderLoadLoseNoAcknowledgedEventAndDoubleNone() throws Exception {
        var random = new Random(3);
        var stop = new AtomicBoolean();
        var acknowledged = new AtomicLong();
        List<Future<Long>> writers = new ArrayList<>();
        // The limit exceeds the time of a restart, so no writer gives up.
        try (var journal = new JournalDriver(config("5 minutes"));
                ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int i = 0; i < WRITERS; i++) {
                var writer = journal.writer("load-" + i, "w" + i);
                writers.add(threads.submit(() -> writeUntil(stop, writer, acknowledged)));
            }
            for (int kill = 0; kill < 2; kill++) {
                awaitMore(writers, acknowledged, 50 + random.nextInt(300));
                killAndStartAgain();
            }
            awaitMore(writers, acknowledged, 50);
            stop.set(true);
            for (int i = 0; i < WRITERS; i++) {
                long count = writers.get(i).get();
                List<PersistentRepr> found = journal.replay("load-" + i, 1, Long.MAX_VALUE, Long.MAX_VALUE);
                assertEquals(LongStream.rangeClosed(1, count).boxed().toList(),
                        found.stream().map(PersistentRepr::sequenceNr).toList());
                for (PersistentRepr one : found) assertEquals("e" + one.sequenceNr(), one.payload());
            }
        }
    }

    @Test void aWriteOfUnknownOutcomeIsStoredCompletelyOrNotAtAll() throws Exception {
        // The writer gives up immediately, so that the outcome of the write in progress stays unknown.
        List<Future<Long>> writers = new ArrayList<>();
        var acknowledged = new AtomicLong();
        try (var journal = new JournalDriver(config("0 s"));
                ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (int i = 0; i < WRITERS; i++) {
                var writer = journal.writer("given-up-" + i, "w" + i);
                writers.add(threads.submit(() -> writeUntil(new AtomicBoolean(), writer, acknowledged)));
            }
            awaitMore(writers, acknowledged, 100);
            killAndStartAgain();
        }
        try (var journal = new JournalDriver(config("30 s"))) {
            for (int i = 0; i < WRITERS; i++) {
                long count = writers.get(i).get();
                long highest = journal.highest("given-up-" + i);
                assertTrue(highest == count || highest == count + 1, highest + " after " + count);
                assertEquals(highest, journal.payloads("given-up-" + i).size());
                assertTrue(journal.writer("given-up-" + i, "next").write(highest + 1, "x").isEmpty());
            }
        }
    }

    @Test void writesWaitForACassandraThatIsDownForAWhile() throws Exception {
        try (var journal = new JournalDriver(config("5 minutes"))) {
            var writer = journal.writer("away", "w");
            assertTrue(writer.write(1, "before").isEmpty());
            node.kill();
            writer.send(2, "meanwhile");
            node = LocalCassandra.start(node.settings());
            assertTrue(writer.outcome(1).isEmpty());
            assertEquals(List.of("before", "meanwhile"), journal.payloads("away"));
        }
    }

    @Test void aWriteFailsWithoutCassandraAndTheEntityContinuesLater() {
        try (var journal = new JournalDriver(config("1 s"))) {
            var writer = journal.writer("long-away", "w");
            assertTrue(writer.write(1, "before").isEmpty());
            node.kill();
            assertTrue(writer.write(2, "lost").isPresent());
            node = LocalCassandra.start(node.settings());
        }
        try (var journal = new JournalDriver(config("1 minute"))) {
            assertEquals(List.of("before"), journal.payloads("long-away"));
            assertTrue(journal.writer("long-away", "v").write(2, "after").isEmpty());
        }
    }

    @Test void aProcessThatStartsBeforeCassandraWaitsForIt() throws Exception {
        node.kill();
        Config config = ConfigFactory.parseMap(Map.of("bios.storage.journal", "cassandra",
                "bios.storage.blobs", "cassandra")).withFallback(config("30 s"));
        try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor();
                var journal = new JournalDriver(config)) {
            Future<Storage> storage = threads.submit(() -> Storage.open(config));
            var writer = journal.writer("early", "w");
            writer.send(1, "first");
            node = LocalCassandra.start(node.settings());
            assertTrue(writer.outcome(1).isEmpty());
            storage.get().close();
        }
    }

    @Test void aCassandraThatDoesNotAnswerIsReportedByNameAndAddress() {
        Config config = ConfigFactory.parseString("""
                bios.storage { journal = cassandra, blobs = cassandra }
                bios.storage.cassandra { contact-points = ["127.0.0.1:1"], connect-within = 1 s }""")
                .withFallback(ConfigFactory.load());
        var told = assertThrows(CassandraUnavailable.class, () -> Storage.open(config));
        assertTrue(told.getMessage().contains("127.0.0.1:1") && told.getMessage().contains("contact-points"),
                told.getMessage());
    }
}
