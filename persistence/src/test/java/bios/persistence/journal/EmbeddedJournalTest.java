package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.typesafe.config.ConfigFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.DriverManager;
import java.time.Duration;
import java.util.List;
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

class EmbeddedJournalTest {
    @TempDir Path folder;

    /// Stores the texts that it is sent; asked for nothing it tells how many it has.
    static final class Counter extends EventSourcedBehavior<Counter.Add, String, Integer> {
        /// Several texts, divided by commas, are stored together or not at all.
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
        EmbeddedJournal.createSchema(folder);
        var kit = ActorTestKit.create("journal",
                EmbeddedJournal.config(folder).withFallback(ConfigFactory.load()));
        try {
            TestProbe<Integer> probe = kit.createTestProbe();
            kit.spawn(new Counter()).tell(new Counter.Add(text, probe.getRef()));
            return probe.receiveMessage(Duration.ofSeconds(20));
        } finally {
            kit.shutdownTestKit();
        }
    }

    @Test void eventsAreThereAfterARestartAndTheSchemaIsMadeOnce() {
        assertEquals(1, addOnce());
        EmbeddedJournal.createSchema(folder);
        assertEquals(2, addOnce());
    }

    @Test void eventsOfAnySizeAreStoredTogetherInTheirOrder() {
        assertEquals(3, add("x," + "y".repeat(100_000) + ",z"));
        assertEquals(4, addOnce());
    }

    @Test void ofEventsThatAreStoredTogetherOneThatCannotBeTakesTheOthersWithIt() throws Exception {
        assertEquals(1, addOnce());
        try (var connection = DriverManager.getConnection(EmbeddedJournal.url(folder), "sa", "");
                var statement = connection.createStatement()) {
            statement.execute("ALTER TABLE \"event_journal\" ADD CONSTRAINT \"few\""
                    + " CHECK (\"sequence_number\" < 4)");
        }
        var kit = ActorTestKit.create("journal",
                EmbeddedJournal.config(folder).withFallback(ConfigFactory.load()));
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
                        EmbeddedJournal.url(folder).replace(":" + PatientFiles.SCHEME + ":", ":file:")))
                .redirectErrorStream(true).start();
        try (var lines = process.inputReader()) {
            assertEquals("held", lines.readLine());
            var refused = assertThrows(JournalInUse.class, () -> EmbeddedJournal.createSchema(folder));
            assertTrue(refused.getMessage().contains(folder.toString()), refused.getMessage());
        } finally {
            process.destroyForcibly().waitFor();
        }
        EmbeddedJournal.createSchema(folder);
    }

    @Test void theAddressKeepsWhatKillDashNineMustNotLose() {
        String url = EmbeddedJournal.config(folder)
                .getString("pekko-persistence-jdbc.shared-databases.slick.db.url");
        assertTrue(url.contains(";WRITE_DELAY=0"), url);
        assertTrue(url.contains(";DB_CLOSE_ON_EXIT=FALSE"), url);
    }
}
