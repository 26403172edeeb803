package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.sampling.JdbcSamplingTaskStore;
import com.typesafe.config.ConfigFactory;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.persistence.Persistence;
import org.apache.pekko.persistence.PersistentRepr;
import org.apache.pekko.persistence.SelectedSnapshot;
import org.apache.pekko.persistence.SnapshotProtocol;
import org.apache.pekko.persistence.SnapshotSelectionCriteria;
import org.apache.pekko.testkit.javadsl.TestKit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import scala.jdk.javaapi.OptionConverters;

/// Reads a database that an early build of Bios wrote with pekko-persistence-jdbc 1.1.1.
class JdbcJournalGoldenTest {
    private static final String FILE = "/golden/embedded-pekko-jdbc-1.1.mv.db";
    @TempDir Path folder;

    @BeforeEach void copy() throws Exception {
        try (InputStream in = JdbcJournalGoldenTest.class.getResourceAsStream(FILE)) {
            Files.copy(in, folder.resolve("journal.mv.db"));
        }
        EmbeddedDatabase.createSchema(folder);
    }

    private JournalDriver driver() {
        return new JournalDriver(JdbcJournal.config(folder).withFallback(ConfigFactory.load()));
    }

    private static Optional<SelectedSnapshot> snapshot(JournalDriver driver, String id, long maxNumber) {
        var probe = new TestKit(driver.system());
        Persistence.get(driver.system()).snapshotStoreFor("", ConfigFactory.empty())
                .tell(new SnapshotProtocol.LoadSnapshot(id, SnapshotSelectionCriteria.create(maxNumber,
                        Long.MAX_VALUE), Long.MAX_VALUE), probe.getRef());
        return OptionConverters.toJava(assertInstanceOf(SnapshotProtocol.LoadSnapshotResult.class,
                probe.receiveOne(Duration.ofSeconds(30))).snapshot());
    }

    @Test void eventsAreReadAndContinued() {
        try (var journal = driver()) {
            List<Object> plain = journal.payloads("plain");
            assertEquals(List.of("one", "two", "x".repeat(100_000), 4), plain.subList(0, 4));
            assertArrayEquals(new byte[] {1, 2, 3}, (byte[]) plain.get(4));
            PersistentRepr described = journal.replay("described", 1, 10, 10).getFirst();
            assertEquals("payload", described.payload());
            assertEquals("writer-4", described.writerUuid());
            assertEquals(Optional.of("meta"), OptionConverters.toJava(described.metadata()));
            assertEquals(Optional.empty(), journal.writer("plain", "new").write(6, "six"));
            assertEquals("six", journal.payloads("plain").get(5));
        }
    }

    @Test void deletedEventsStayDeletedAndSequenceNumbersContinue() {
        try (var journal = driver()) {
            assertEquals(List.of("e5", "e6"), journal.payloads("pruned"));
            assertEquals(List.of(), journal.payloads("ended"));
            assertEquals(3, journal.highest("ended"));
            journal.delete("pruned", 5);
            assertEquals(List.of("e6"), journal.payloads("pruned"));
            assertInstanceOf(JournalConflict.class,
                    journal.writer("ended", "new").write(3, "x").orElseThrow());
            assertEquals(Optional.empty(), journal.writer("ended", "new").write(4, "four"));
        }
    }

    @Test void snapshotsAreRead() {
        try (var journal = driver()) {
            SelectedSnapshot newest = snapshot(journal, "pruned", Long.MAX_VALUE).orElseThrow();
            assertEquals("state 5", newest.snapshot());
            assertEquals(5, newest.metadata().sequenceNr());
            assertEquals(Optional.of("about 5"), OptionConverters.toJava(newest.metadata().metadata()));
            assertEquals("y".repeat(50_000), snapshot(journal, "pruned", 4).orElseThrow().snapshot());
            assertEquals("state 2", snapshot(journal, "pruned", 3).orElseThrow().snapshot());
            assertEquals(Optional.empty(), snapshot(journal, "pruned", 1));
        }
    }

    @Test void samplingTasksAreRead() {
        try (var tasks = JdbcSamplingTaskStore.open(folder, InstantSource.system())) {
            assertArrayEquals(new byte[] {7}, tasks.find("task").orElseThrow().body());
        }
    }
}
