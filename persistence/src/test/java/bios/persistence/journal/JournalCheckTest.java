package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.embedded.AcknowledgedLog;
import bios.persistence.embedded.DatabaseServer;
import bios.persistence.embedded.EmbeddedDatabase;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.sql.SQLException;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The comparison of the embedded journal with what was acknowledged, before a process starts.
class JournalCheckTest {
    private static final String RUN = "run-tiny|tiny-0123456789ab";
    private static final String SESSION = "session|s1";
    @TempDir Path data;
    private Path journal;

    @BeforeEach void folder() {
        journal = data.resolve("journal");
        JournalCheck.open(data);
    }

    private JournalDriver driver() {
        return new JournalDriver(JdbcJournal.config(journal).withFallback(ConfigFactory.load()));
    }

    private void write(String id, int from, int to) {
        try (var driver = driver()) {
            assertEquals(Optional.empty(), driver.writer(id, "w" + from).write(from,
                    JournalDriver.texts(from, to)));
        }
    }

    private Path file() {
        return AcknowledgedLog.file(journal);
    }

    private Path database() {
        return journal.resolve("journal.mv.db");
    }

    private String refusal() throws IOException {
        boolean there = Files.exists(database());
        byte[] before = there ? Files.readAllBytes(database()) : new byte[0];
        String message = assertThrows(JournalLoss.class, () -> JournalCheck.open(data)).getMessage();
        assertEquals(there, Files.exists(database()));
        if (there) assertTrue(Arrays.equals(before, Files.readAllBytes(database())), "nothing was changed");
        for (String way : List.of("bios fsck --data " + data, "bios restore --data " + data, "--accept-loss"))
            assertTrue(message.contains(way), message);
        return message;
    }

    @Test void anOlderJournalIsRefusedAndEachEntityIsNamed() throws Exception {
        write(RUN, 1, 3);
        write(SESSION, 1, 2);
        Path older = data.resolve("older");
        Files.copy(database(), older);
        write(RUN, 4, 7);
        JournalCheck.open(data);
        Files.move(older, database(), StandardCopyOption.REPLACE_EXISTING);
        String message = refusal();
        assertTrue(message.contains("run tiny-0123456789ab: the journal has events up to 3, acknowledged up"
                + " to 7"), message);
        assertFalse(message.contains("session s1"), message);
    }

    @Test void aMissingOrEmptyJournalIsRefused() throws Exception {
        write(RUN, 1, 3);
        Files.delete(database());
        assertTrue(refusal().contains("the journal has none of its events, acknowledged up to 3"));
        Files.createFile(database());
        assertTrue(refusal().contains("the journal has none of its events, acknowledged up to 3"));
    }

    @Test void anEmptyJournalBesideBlobsIsRefused() throws Exception {
        Path blobs = Files.createDirectories(data.resolve("blobs/blobs/runs/tiny-0123456789ab/recovery"));
        Files.delete(database());
        Files.delete(file());
        JournalCheck.open(data);    // an empty folder of a run is not a blob
        Files.writeString(blobs.resolve("0".repeat(64)), "state");
        Files.delete(database());
        Files.delete(file());
        assertTrue(refusal().contains("run tiny-0123456789ab"));
    }

    @Test void aJournalThatIsAheadIsNormal() throws Exception {
        write(RUN, 1, 3);
        Path older = data.resolve("older");
        Files.copy(file(), older);
        write(RUN, 4, 7);
        Files.move(older, file(), StandardCopyOption.REPLACE_EXISTING);
        JournalCheck.open(data);
        assertEquals(Map.of(RUN, 7L), AcknowledgedLog.read(journal).orElseThrow().newest());
    }

    @Test void aTornLastRecordIsNormal() throws Exception {
        write(RUN, 1, 3);
        write(SESSION, 1, 2);
        byte[] whole = Files.readAllBytes(file());
        for (int cut = 1; cut < 20; cut++) {
            Files.write(file(), Arrays.copyOf(whole, whole.length - cut));
            assertFalse(AcknowledgedLog.read(journal).orElseThrow().damaged());
        }
        JournalCheck.open(data);
        assertEquals(Map.of(RUN, 3L, SESSION, 2L), AcknowledgedLog.read(journal).orElseThrow().newest());
    }

    @Test void aDamagedFileBesideAGoodJournalIsReplacedAndKept() throws Exception {
        write(RUN, 1, 3);
        write(SESSION, 1, 2);
        byte[] bytes = Files.readAllBytes(file());
        bytes[12] ^= 1;
        Files.write(file(), bytes);
        assertTrue(AcknowledgedLog.read(journal).orElseThrow().damaged());
        JournalCheck.open(data);
        assertEquals(Map.of(RUN, 3L, SESSION, 2L), AcknowledgedLog.read(journal).orElseThrow().newest());
        assertTrue(Arrays.equals(bytes, Files.readAllBytes(journal.resolve("acknowledged.log.damaged"))));
    }

    @Test void whatADamagedFileStillSaysCounts() throws Exception {
        write(RUN, 1, 3);
        Path older = data.resolve("older");
        Files.copy(database(), older);
        write("session|s0", 1, 1);
        write(SESSION, 1, 2);
        byte[] bytes = Files.readAllBytes(file());
        bytes[12] ^= 1;
        Files.write(file(), bytes);
        Files.move(older, database(), StandardCopyOption.REPLACE_EXISTING);
        assertTrue(refusal().contains("session s1: the journal has none of its events, acknowledged up to"
                + " 2"));
    }

    @Test void aDamagedJournalIsNotExcusedByADamagedFile() throws Exception {
        write(RUN, 1, 3);
        Files.delete(file());
        try (var connection = EmbeddedDatabase.connect(EmbeddedDatabase.url(journal));
                var statement = connection.createStatement()) {
            statement.execute("DELETE FROM \"event_journal\" WHERE \"sequence_number\" = 2");
        }
        assertTrue(refusal().contains("run tiny-0123456789ab: event 2 is missing"));
    }

    @Test void aFolderOfAnEarlierBuildStartsAndGetsAFile() throws Exception {
        Files.delete(database());
        Files.delete(file());
        try (var in = JournalCheckTest.class.getResourceAsStream("/golden/embedded-pekko-jdbc-1.1.mv.db")) {
            Files.copy(in, database());
        }
        JournalCheck.open(data);
        Map<String, Long> newest = AcknowledgedLog.read(journal).orElseThrow().newest();
        assertEquals(5, newest.get("plain"));
        assertEquals(3, newest.get("ended"));
        try (var offline = OfflineJournal.read(data)) {
            for (String id : newest.keySet())
                assertEquals(List.of(), offline.rows(id).problems(newest.get(id)), id);
            assertEquals(4, offline.rows("pruned").deletedTo());
        }
    }

    @Test void aFileThatIsNoDatabaseIsRefusedWithoutAStackTrace() throws Exception {
        write(RUN, 1, 3);
        Files.write(database(), new byte[8192], StandardOpenOption.WRITE);
        assertTrue(refusal().contains("cannot be read, the file is damaged"));
    }

    @Test void theFileIsRewrittenWhenItGrows() throws Exception {
        String id = "run-tiny|" + "x".repeat(500);
        try (var log = AcknowledgedLog.open(journal)) {
            for (long number = 1; number <= 10_000; number++) {
                log.add(id, number);
                log.write();
            }
        }
        assertTrue(Files.size(file()) < 2 << 20, Files.size(file()) + " bytes");
        assertEquals(10_000, AcknowledgedLog.read(journal).orElseThrow().newest().get(id));
    }

    /// A worker of `bios up` with several devices uses the database that another process serves.
    @Test void whatAnotherProcessHasWrittenToAServedDatabaseCountsToo() throws Exception {
        write(RUN, 1, 3);
        Path older = data.resolve("older");
        Files.copy(database(), older);
        try (var open = EmbeddedDatabase.connect(EmbeddedDatabase.url(journal));
                var server = DatabaseServer.start(journal)) {
            var config = JdbcJournal.config(journal, server.url(), "worker:1");
            try (var worker = new JournalDriver(config.withFallback(ConfigFactory.load()))) {
                assertEquals(Optional.empty(), worker.writer(RUN, "w4").write(4, JournalDriver.texts(4, 7)));
                assertTrue(worker.writer(RUN, "late").write(7, JournalDriver.texts(7, 7)).isPresent());
            }
            assertFalse(open.isClosed());
            String strange = server.url().replaceAll("/[0-9a-f]+$", "/" + "0".repeat(48));
            assertThrows(SQLException.class, () -> EmbeddedDatabase.connect(strange));
        }
        Path other = journal.resolve("acknowledged-worker_1.log");
        assertTrue(Files.exists(other));
        assertEquals(Map.of(RUN, 7L), AcknowledgedLog.read(journal).orElseThrow().newest());
        Path newest = data.resolve("newest");
        Files.copy(database(), newest);
        Files.move(older, database(), StandardCopyOption.REPLACE_EXISTING);
        assertTrue(refusal().contains("the journal has events up to 3, acknowledged up to 7"));
        Files.move(newest, database(), StandardCopyOption.REPLACE_EXISTING);
        JournalCheck.open(data);
        assertFalse(Files.exists(other));
        assertEquals(Map.of(RUN, 7L), AcknowledgedLog.read(journal).orElseThrow().newest());
    }

    @Test void deletionLowersNothing() throws Exception {
        write(SESSION, 1, 9);
        try (var driver = driver()) {
            driver.delete(SESSION, Long.MAX_VALUE);
        }
        JournalCheck.open(data);
        assertEquals(Map.of(SESSION, 9L), AcknowledgedLog.read(journal).orElseThrow().newest());
    }
}
