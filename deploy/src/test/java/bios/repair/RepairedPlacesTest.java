package bios.repair;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.CommandFailed;
import bios.persistence.embedded.AcknowledgedLog;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JournalCheck;
import bios.persistence.journal.JournalLoss;
import bios.persistence.journal.OfflineJournal;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.Statement;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Damages the embedded journal at random places and repairs it: whatever is damaged, `bios fsck` says so,
/// and `bios restore`, or `bios up --accept-loss` where that refuses, ends with a journal that can be opened
/// and changed, in which each entity is a whole prefix of what was written. The long form:
/// `-Dtest=RepairedPlacesTest -Dbios.places=400`.
class RepairedPlacesTest {
    private static final int PLACES = Integer.getInteger("bios.places", 24);
    private static final long SEED = Long.getLong("bios.seed", 7);
    private static final int EVENTS = 600;
    private static final List<String> ENTITIES = List.of("owner|a", "owner|b", "owner|c", "owner|d",
            "/sharding/run-tinyShard/3");
    @TempDir Path folder;

    /// A journal as `kill -9` leaves it: closing would compact the file.
    private static void write(Path data, Path killed) throws Exception {
        var random = new Random(SEED);
        Map<String, Long> heads = new HashMap<>();
        try (OfflineJournal journal = OfflineJournal.change(data)) {
            for (int i = 0; i < EVENTS; i++) {
                String id = ENTITIES.get(random.nextInt(ENTITIES.size()));
                byte[] event = new byte[random.nextInt(8) == 0 ? 20_000 : 20 + random.nextInt(400)];
                random.nextBytes(event);
                long after = heads.getOrDefault(id, 0L);
                journal.append(id, after, 20, "event", event, 1_000 + i);
                heads.put(id, after + 1);
            }
            journal.acknowledge(heads);
            copy(data, killed);
        }
    }

    private static void copy(Path from, Path to) throws IOException {
        Path journal = Files.createDirectories(OfflineJournal.folder(to));
        for (Path file : List.of(EmbeddedDatabase.file(journal), AcknowledgedLog.file(journal)))
            Files.write(file, Files.readAllBytes(OfflineJournal.folder(from).resolve(file.getFileName())));
    }

    private static String damage(Path file, int place, Random random) throws IOException {
        byte[] bytes = Files.readAllBytes(file);
        int at = place % 6 == 2 ? name(bytes, random) : random.nextInt(bytes.length);
        switch (place % 6) {
            case 0 -> bytes = Arrays.copyOf(bytes, bytes.length - random.nextInt(bytes.length));
            case 1 -> Arrays.fill(bytes, at & -4096, Math.min(bytes.length, (at & -4096) + 4096), (byte) 0);
            default -> bytes[at] ^= (byte) (1 << random.nextInt(8));
        }
        Files.write(file, bytes);
        return place + ": " + List.of("cut", "a page of zeros", "a bit of a name", "a bit", "a bit", "a bit")
                .get(place % 6) + " at " + at;
    }

    /// A byte of a random row's or index entry's persistence id: rows and index then disagree.
    private static int name(byte[] bytes, Random random) {
        String text = new String(bytes, StandardCharsets.ISO_8859_1);
        String name = ENTITIES.get(random.nextInt(ENTITIES.size()));
        int found = text.indexOf(name, random.nextInt(bytes.length));
        return (found < 0 ? text.indexOf(name) : found) + random.nextInt(name.length());
    }

    /// The payloads of each entity, without what a repair records.
    private static Map<String, List<String>> contents(Path data) throws Exception {
        var contents = new TreeMap<String, List<String>>();
        try (OfflineJournal journal = OfflineJournal.read(data)) {
            for (String id : journal.heads().keySet()) {
                var rows = journal.rows(id);
                assertEquals(Optional.empty(), rows.failure());
                contents.put(id, rows.events().stream().map(row -> Arrays.toString(row.bytes())).toList());
            }
        }
        return contents;
    }

    private static boolean opens(Path data) {
        try {
            JournalCheck.open(data);
            return true;
        } catch (JournalLoss loss) {
            assertTrue(loss.getMessage().contains("bios restore"), loss.getMessage());
            return false;
        }
    }

    /// @return whether `restore` was enough
    private static boolean repair(Path data, List<String> said) {
        var repair = new DataRepair(data, false, InstantSource.system(), said::add);
        try {
            repair.restore(Optional.empty());
            return true;
        } catch (CommandFailed refused) {
            said.add(refused.getMessage());
            assertTrue(refused.getMessage().contains("--accept-loss"), refused.getMessage());
            repair.acceptLoss();
            return false;
        }
    }

    /// The number of the last event must not be used again, and a start looks for it.
    @Test void anEntityOfWhichOnlyTheSnapshotIsLeftKeepsItsNumber() throws Exception {
        Path data = folder.resolve("snapshot");
        try (OfflineJournal journal = OfflineJournal.change(data)) {
            journal.append("owner|a", 0, 20, "event", new byte[1], 1);
            journal.acknowledge(Map.of("owner|a", 5L));
        }
        String url = EmbeddedDatabase.url(OfflineJournal.folder(data));
        try (Connection connection = EmbeddedDatabase.connect(url);
                Statement statement = connection.createStatement()) {
            statement.execute("DELETE FROM \"event_journal\"");
            statement.execute("""
                    INSERT INTO "snapshot" ("persistence_id", "sequence_number", "created", "snapshot_ser_id",
                    "snapshot_ser_manifest", "snapshot_payload") VALUES ('owner|a', 5, 1, 20, 's', X'00')""");
        }
        assertFalse(opens(data));
        assertTrue(repair(data, new ArrayList<>()));
        assertTrue(opens(data));
        try (OfflineJournal journal = OfflineJournal.read(data)) {
            assertEquals(Map.of("owner|a", 5L), journal.heads());
        }
    }

    @Test void everyDamagedPlaceIsRepaired() throws Exception {
        Path killed = folder.resolve("killed");
        write(folder.resolve("whole"), killed);
        Map<String, List<String>> written = contents(killed);
        var random = new Random(SEED);
        int open = 0;
        int restored = 0;
        int accepted = 0;
        for (int place = 0; place < PLACES; place++) {
            Path data = folder.resolve("place-" + place);
            copy(killed, data);
            String how = damage(EmbeddedDatabase.file(OfflineJournal.folder(data)), place, random);
            List<String> said = new ArrayList<>(List.of(how));
            try {
                boolean clean = DataCheck.of(data, false).clean();
                Path started = folder.resolve("started-" + place);
                copy(data, started);
                boolean opens = opens(started);
                assertTrue(opens || !clean, "refused, and fsck finds nothing");
                if (opens) open++;
                if (clean) continue;
                if (repair(data, said)) restored++;
                else accepted++;
                assertTrue(opens(data), "refused after the repair");
                assertTrue(DataCheck.of(data, false).clean(), "not clean after the repair");
                contents(data).forEach((id, events) -> assertEquals(events.stream().toList(),
                        written.get(id).subList(0, Math.min(events.size(), written.get(id).size())), id));
            } catch (Exception | AssertionError failed) {
                throw new AssertionError(String.join("\n", said), failed);
            }
        }
        System.out.println(PLACES + " places: " + open + " open, " + restored + " restored, " + accepted
                + " started with what is left");
        assertFalse(restored == 0);
    }
}
