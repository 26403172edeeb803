package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.cassandra.TestCassandra;
import bios.persistence.embedded.DatabaseInUse;
import bios.persistence.embedded.EmbeddedDatabase;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.stream.LongStream;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.actor.testkit.typed.javadsl.TestProbe;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.persistence.typed.PersistenceId;
import org.apache.pekko.persistence.typed.javadsl.CommandHandler;
import org.apache.pekko.persistence.typed.javadsl.EventHandler;
import org.apache.pekko.persistence.typed.javadsl.EventSourcedBehavior;
import org.h2.Driver;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scalatest.tools.Runner;

class JdbcJournalTest {
    @TempDir Path folder;

    /// An entity that stores texts; an empty text asks for their number.
    static final class Counter extends EventSourcedBehavior<Counter.Add, String, Integer> {
        /// Several texts, separated by commas, are one atomic write.
        record Add(String text, ActorRef<Integer> replyTo) {}

        Counter() {
            super(PersistenceId.ofUniqueId("counter"));
        }

        @Override public Integer emptyState() {
            return 0;
        }

        @Override public CommandHandler<Add, String, Integer> commandHandler() {
            return (_, add) -> Effect().persist(List.of(add.text().split(",")))
                    .thenRun(now -> add.replyTo().tell(now));
        }

        @Override public EventHandler<Integer, String> eventHandler() {
            return (count, _) -> count + 1;
        }
    }

    private int addOnce() {
        return add("x");
    }

    private int add(String text) {
        EmbeddedDatabase.createSchema(folder);
        var kit = ActorTestKit.create("journal",
                JdbcJournal.config(folder).withFallback(ConfigFactory.load()));
        try {
            TestProbe<Integer> probe = kit.createTestProbe();
            kit.spawn(new Counter()).tell(new Counter.Add(text, probe.getRef()));
            return probe.receiveMessage(Duration.ofSeconds(20));
        } finally {
            kit.shutdownTestKit();
        }
    }

    @Test void eventsSurviveARestartAndTheSchemaIsCreatedOnce() {
        assertEquals(1, addOnce());
        EmbeddedDatabase.createSchema(folder);
        assertEquals(2, addOnce());
    }

    @Test void eventsOfAnySizeAreStoredTogetherInTheirOrder() {
        assertEquals(3, add("x," + "y".repeat(100_000) + ",z"));
        assertEquals(4, addOnce());
    }

    @Test void anAtomicWriteWithAnEventThatCannotBeStoredStoresNothing() throws Exception {
        assertEquals(1, addOnce());
        try (var connection = DriverManager.getConnection(EmbeddedDatabase.url(folder), "sa", "");
                var statement = connection.createStatement()) {
            statement.execute("ALTER TABLE \"event_journal\" ADD CONSTRAINT \"few\""
                    + " CHECK (\"sequence_number\" < 4)");
        }
        var kit = ActorTestKit.create("journal",
                JdbcJournal.config(folder).withFallback(ConfigFactory.load()));
        try {
            TestProbe<Integer> probe = kit.createTestProbe();
            var counter = kit.spawn(new Counter());
            counter.tell(new Counter.Add("a,b,c", probe.getRef()));
            probe.expectTerminated(counter, Duration.ofSeconds(20));
        } finally {
            kit.shutdownTestKit();
        }
        assertEquals(2, addOnce());
    }

    @Test void aJournalThatAnotherProcessHoldsIsRefusedByName() throws Exception {
        Path h2 = Path.of(Driver.class.getProtectionDomain().getCodeSource().getLocation().toURI());
        Path holder = Files.writeString(folder.resolve("Holder.java"), """
                class Holder {
                    public static void main(String[] arguments) throws Exception {
                        try (var connection = java.sql.DriverManager.getConnection(arguments[0], "sa", "")) {
                            System.out.println("held");
                            System.in.read();
                        }
                    }
                }
                """);
        String launcher = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        Process process = new ProcessBuilder(
                List.of(launcher, "-cp", h2.toString(), holder.toString(),
                        EmbeddedDatabase.url(folder).replace(":retry:", ":file:")))
                .redirectErrorStream(true).start();
        try (var lines = process.inputReader()) {
            assertEquals("held", lines.readLine());
            var refused = assertThrows(DatabaseInUse.class, () -> EmbeddedDatabase.createSchema(folder));
            assertTrue(refused.getMessage().contains(folder.toString()), refused.getMessage());
        } finally {
            process.destroyForcibly().waitFor();
        }
        EmbeddedDatabase.createSchema(folder);
    }

    @Test void theAddressHasTheOptionsForSurvivingKillDashNine() {
        for (String plugin : List.of("bios-embedded-journal", "bios-embedded-snapshots")) {
            String url = JdbcJournal.config(folder).getString(plugin + ".url");
            assertTrue(url.contains(";WRITE_DELAY=0"), url);
            assertTrue(url.contains(";DB_CLOSE_ON_EXIT=FALSE"), url);
        }
    }

    /// The settings of a database in a temporary folder, which is deleted at the end of the process.
    static Config freshDatabase() {
        try {
            Path folder = Files.createTempDirectory("bios-journal-");
            Runtime.getRuntime().addShutdownHook(new Thread(() -> TestCassandra.delete(folder)));
            EmbeddedDatabase.createSchema(folder);
            return JdbcJournal.config(folder).withFallback(ConfigFactory.load());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    private JournalDriver driver() {
        EmbeddedDatabase.createSchema(folder);
        return new JournalDriver(JdbcJournal.config(folder).withFallback(ConfigFactory.load()));
    }

    @Test void itPassesPekkosTestsOfAJournal() {
        assertTrue(Runner.run(new String[] {"-oW", "-s", JdbcJournalTck.class.getName()}));
    }

    @Test void itPassesPekkosTestsOfASnapshotStore() {
        assertTrue(Runner.run(new String[] {"-oW", "-s", JdbcSnapshotTck.class.getName()}));
    }

    @Test void ofTwoWritersOfOneNumberOneIsRefusedAndWritesNothing() {
        try (var journal = driver()) {
            assertEquals(Optional.empty(), journal.writer("two", "a").write(1, "a1", "a2"));
            var refused = assertInstanceOf(JournalConflict.class,
                    journal.writer("two", "b").write(2, "b2", "b3").orElseThrow());
            assertTrue(refused.getMessage().contains("event 2 of two"), refused.getMessage());
            assertEquals(List.of("a1", "a2"), journal.payloads("two"));
            assertEquals(Optional.empty(), journal.writer("two", "a").write(3, "a3"));
        }
    }

    @Test void aWriterThatWasSuspendedDuringEventsAndTheirDeletionIsRefused() throws Exception {
        try (var journal = driver()) {
            var suspended = journal.writer("moved", "a");
            assertEquals(Optional.empty(), suspended.write(1, "a1", "a2", "a3"));
            assertEquals(Optional.empty(), journal.writer("moved", "b").write(4, JournalDriver.texts(4, 30)));
            journal.delete("moved", 20);
            for (int count : new int[] {1, 3}) assertInstanceOf(JournalConflict.class,
                    suspended.write(4, JournalDriver.texts(1, count)).orElseThrow());
            assertInstanceOf(JournalConflict.class, suspended.writeEach(4, "a4", "a5").orElseThrow());
            journal.delete("moved", Long.MAX_VALUE);
            assertInstanceOf(JournalConflict.class, suspended.write(4, "a4").orElseThrow());
            assertEquals(1, rows("event_journal"), "nothing was written");
            assertEquals(Optional.empty(), journal.writer("other", "c").writeEach(1, "c1", "c2"));
            assertEquals(Optional.empty(), journal.writer("moved", "b").writeEach(31, "b31", "b32"));
            assertEquals(List.of("b31", "b32"), journal.payloads("moved"));
        }
    }

    @Test void replayIsOrderedOverPagesAndHonoursItsBounds() {
        try (var journal = driver()) {
            var writer = journal.writer("pages", "a");
            assertEquals(Optional.empty(), writer.write(1, JournalDriver.texts(1, 450)));
            assertEquals(numbers(1, 450), journal.numbers("pages", 1, Long.MAX_VALUE, Long.MAX_VALUE));
            assertEquals(numbers(3, 399), journal.numbers("pages", 3, 399, Long.MAX_VALUE));
            assertEquals(numbers(200, 401), journal.numbers("pages", 200, 450, 202));
            assertEquals(numbers(1, 400), journal.numbers("pages", 1, 400, 400));
        }
    }

    @Test void deletionNeverLowersTheHighestNumber() throws Exception {
        try (var journal = driver()) {
            var writer = journal.writer("deleted", "a");
            assertEquals(Optional.empty(), writer.write(1, JournalDriver.texts(1, 30)));
            journal.delete("deleted", 12);
            journal.delete("deleted", 5);
            assertEquals(numbers(13, 30), journal.numbers("deleted", 1, 100, 100));
            assertEquals(18, rows("event_journal"));
            journal.delete("deleted", Long.MAX_VALUE);
            assertEquals(List.of(), journal.numbers("deleted", 1, 100, 100));
            assertEquals(30, journal.highest("deleted"));
            assertEquals(1, rows("event_journal"), "the row of the highest number stays");
            assertEquals(Optional.empty(), journal.writer("deleted", "b").write(31, "e31"));
            assertEquals(List.of("e31"), journal.payloads("deleted"));
            journal.delete("never", Long.MAX_VALUE);
            assertEquals(0, journal.highest("never"));
        }
    }

    private int rows(String table) throws SQLException {
        try (var connection = EmbeddedDatabase.connect(EmbeddedDatabase.url(folder));
                var statement = connection.createStatement();
                var count = statement.executeQuery("SELECT COUNT(*) FROM \"" + table + '"')) {
            count.next();
            return count.getInt(1);
        }
    }

    private static List<Long> numbers(long from, long to) {
        return LongStream.rangeClosed(from, to).boxed().toList();
    }
}
