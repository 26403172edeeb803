package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.embedded.EmbeddedDatabase;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What can be read of a damaged database file is kept.
class JournalSalvageTest {
    private static final int EVENTS = 2_000;
    @TempDir Path data;

    private Path write() throws Exception {
        JournalCheck.open(data);
        try (var journal = OfflineJournal.change(data)) {
            for (int number = 1; number <= EVENTS; number++) journal.append("run-tiny|tiny-" + number % 4,
                    (number - 1) / 4, 1, "m", ("payload " + number + " " + "x".repeat(200))
                            .getBytes(StandardCharsets.UTF_8), number);
        }
        return EmbeddedDatabase.file(OfflineJournal.folder(data));
    }

    private int events() {
        try (var journal = OfflineJournal.read(data)) {
            int count = 0;
            for (int run = 0; run < 4; run++) {
                StoredRows rows = journal.rows("run-tiny|tiny-" + run);
                count += (int) rows.events().stream().filter(StoredRows.Row::intact).count();
            }
            return count;
        }
    }

    @Test void aFileWithoutItsHeaderIsOpenedAgain() throws Exception {
        Path file = write();
        byte[] bytes = Files.readAllBytes(file);
        Arrays.fill(bytes, 0, 8192, (byte) 0);
        Files.write(file, bytes);
        assertTrue(OfflineJournal.reopen(data));
        assertEquals(EVENTS, events());
    }

    @Test void withoutTheNewestStateTheOneBeforeIsOpened() throws Exception {
        JournalCheck.open(data);
        Path folder = OfflineJournal.folder(data);
        byte[] killed;
        try (var journal = OfflineJournal.change(data)) {
            for (int number = 1; number <= 100; number++)
                journal.append("run-tiny|tiny-0", number - 1, 1, "m", new byte[100], number);
            killed = Files.readAllBytes(EmbeddedDatabase.file(folder));
        }
        Files.write(EmbeddedDatabase.file(folder), killed);
        int before = events();
        for (int states = 1; states <= 3; states++) {
            assertTrue(EmbeddedDatabase.removeNewestState(folder));
            int left = events();
            assertTrue(left >= before - 2 && left <= before, left + " of " + before + " events");
            before = left;
        }
        assertTrue(before < 100);
    }

    @Test void rowsBeforeAndBehindAnUnreadablePageAreKept() throws Exception {
        Path file = write();
        byte[] bytes = Files.readAllBytes(file);
        String text = new String(bytes, StandardCharsets.ISO_8859_1);
        // The pages with these rows, in every copy of them.
        for (int at = text.indexOf("payload 1000 "); at >= 0; at = text.indexOf("payload 1000 ", at + 1))
            Arrays.fill(bytes, at & -4096, (at & -4096) + 4096, (byte) 0);
        Files.write(file, bytes);
        try (var journal = OfflineJournal.read(data)) {
            assertTrue(!journal.readable() || events() < EVENTS);
        }
        long copied = OfflineJournal.salvage(data, InstantSource.system());
        int left = events();
        assertTrue(copied >= left, copied + " rows are copied, " + left + " of them whole");
        assertTrue(left < EVENTS && left > EVENTS - 600, left + " events are left");
    }
}
