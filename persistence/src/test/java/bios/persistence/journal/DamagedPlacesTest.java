package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import bios.persistence.embedded.AcknowledgedLog;
import bios.persistence.embedded.DatabaseInUse;
import bios.persistence.embedded.EmbeddedDatabase;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import org.apache.pekko.persistence.JournalProtocol;
import org.apache.pekko.persistence.Persistence;
import org.apache.pekko.persistence.PersistentRepr;
import org.apache.pekko.persistence.SnapshotMetadata;
import org.apache.pekko.persistence.SnapshotProtocol;
import org.apache.pekko.persistence.SnapshotSelectionCriteria;
import org.apache.pekko.testkit.javadsl.TestKit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import scala.jdk.javaapi.OptionConverters;

/// Damages the embedded journal at random places. Each entity is read as it was written, or something says
/// that it is not: the start is refused, or the reading of that entity fails. The long form:
/// `-Dtest=DamagedPlacesTest -Dbios.places=200`.
class DamagedPlacesTest {
    private static final Duration PATIENCE = Duration.ofSeconds(30);
    private static final int PLACES = Integer.getInteger("bios.places", 12);
    private static final long SEED = Long.getLong("bios.seed", 5);
    private static final List<String> ENTITIES = List.of("run-tiny|tiny-00000000000a",
            "run-tiny|tiny-00000000000b", "run-tiny|tiny-00000000000c", "session|s1",
            "/sharding/run-tinyShard/3");
    @TempDir Path folder;

    private static JournalDriver driver(Path data) {
        return new JournalDriver(JdbcJournal.config(data.resolve("journal"))
                .withFallback(ConfigFactory.load()));
    }

    /// What a recovery reads: the snapshot and the events after it, or the damage.
    private static Map<String, Object> read(Path data) {
        var found = new TreeMap<String, Object>();
        try (var driver = driver(data)) {
            for (String id : ENTITIES) found.put(id, recover(driver, id));
        }
        return found;
    }

    private static Object recover(JournalDriver driver, String id) {
        var probe = new TestKit(driver.system());
        Persistence.get(driver.system()).snapshotStoreFor("", ConfigFactory.empty())
                .tell(new SnapshotProtocol.LoadSnapshot(id, SnapshotSelectionCriteria.latest(),
                        Long.MAX_VALUE), probe.getRef());
        Object answer = probe.receiveOne(PATIENCE);
        if (answer instanceof SnapshotProtocol.LoadSnapshotFailed failed) return failed.cause();
        var snapshot = OptionConverters.toJava(((SnapshotProtocol.LoadSnapshotResult) answer).snapshot());
        var read = new ArrayList<Object>();
        snapshot.ifPresent(one -> read.add(one.snapshot()));
        long from = snapshot.map(one -> one.metadata().sequenceNr()).orElse(0L) + 1;
        Persistence.get(driver.system()).journalFor("", ConfigFactory.empty()).tell(
                new JournalProtocol.ReplayMessages(from, Long.MAX_VALUE, Long.MAX_VALUE, id, probe.getRef()),
                probe.getRef());
        while (true) {
            switch (probe.receiveOne(PATIENCE)) {
                case JournalProtocol.ReplayedMessage one -> {
                    PersistentRepr event = one.persistent();
                    read.add(event.sequenceNr() + " " + event.payload());
                }
                case JournalProtocol.RecoverySuccess end -> {
                    read.add("up to " + end.highestSequenceNr());
                    return read;
                }
                case JournalProtocol.ReplayMessagesFailure failed -> {
                    return failed.cause();
                }
                case null -> throw new AssertionError("the recovery of " + id + " does not end");
                case Object other -> throw new AssertionError("answered " + other);
            }
        }
    }

    private static void prepare(Path data) throws IOException {
        JournalCheck.open(data);
        try (var driver = driver(data)) {
            var random = new Random(SEED);
            var next = new TreeMap<String, Long>();
            for (int i = 0; i < 400; i++) {
                String id = ENTITIES.get(random.nextInt(ENTITIES.size()));
                long number = next.merge(id, 1L, Long::sum);
                String text = "event " + number + " of " + id + "x".repeat(random.nextInt(5) == 0
                        ? 20_000 : random.nextInt(400));
                assertEquals(Optional.empty(), driver.writer(id, "w").write(number, text));
                if (number % 25 == 0) snapshot(driver, id, number);
            }
            // As after kill -9: closed files are more compact.
            copy(data.resolve("journal"), data.resolve("open"));
        }
        copy(data.resolve("open"), data.resolve("journal"));
    }

    private static void snapshot(JournalDriver driver, String id, long number) {
        var probe = new TestKit(driver.system());
        Persistence.get(driver.system()).snapshotStoreFor("", ConfigFactory.empty())
                .tell(new SnapshotProtocol.SaveSnapshot(new SnapshotMetadata(id, number, 1_000 + number),
                        "state " + number + "y".repeat(3_000)), probe.getRef());
        probe.receiveOne(PATIENCE);
        if (number > 25) {
            driver.delete(id, number - 25);
            Persistence.get(driver.system()).snapshotStoreFor("", ConfigFactory.empty()).tell(
                    new SnapshotProtocol.DeleteSnapshots(id, SnapshotSelectionCriteria.create(number - 26,
                            Long.MAX_VALUE)), probe.getRef());
            probe.receiveOne(PATIENCE);
        }
    }

    private static void copy(Path from, Path to) throws IOException {
        Files.createDirectories(to);
        for (Path file : List.of(EmbeddedDatabase.file(to), AcknowledgedLog.file(to)))
            Files.write(file, Files.readAllBytes(from.resolve(file.getFileName())));
    }

    /// Damages a copy of a file; says how.
    private static String damage(Path file, int place, Random random) throws IOException {
        byte[] bytes = Files.readAllBytes(file);
        int at = random.nextInt(bytes.length);
        switch (place % 8) {
            case 0 -> Files.write(file, Arrays.copyOf(bytes, bytes.length - 4096));
            case 1 -> Files.write(file, Arrays.copyOf(bytes, bytes.length - (64 << 10)));
            case 2 -> Files.write(file, Arrays.copyOf(bytes, bytes.length / (place == 2 ? 2
                    : 1 + random.nextInt(4))));
            case 3 -> {
                Files.delete(file);
                if (place % 16 == 3) Files.createFile(file);
            }
            case 4 -> {
                Arrays.fill(bytes, at & -4096, Math.min(bytes.length, (at & -4096) + 4096), (byte) 0);
                Files.write(file, bytes);
            }
            default -> {
                bytes[at] ^= (byte) (1 << random.nextInt(8));
                Files.write(file, bytes);
            }
        }
        return place + ": " + List.of("cut by 4 KiB", "cut by 64 KiB", "cut in parts", "missing or empty",
                "a page of zeros", "a bit", "a bit", "a bit").get(place % 8) + " at " + at;
    }

    @Test void everyDamagedPlaceEndsInTheSameOrIsSaid() throws Exception {
        Path whole = folder.resolve("whole");
        prepare(whole);
        JournalCheck.open(whole);
        Map<String, Object> written = read(whole);
        var random = new Random(SEED);
        int same = 0;
        int refused = 0;
        int unavailable = 0;
        for (int place = 0; place < PLACES; place++) {
            Path data = folder.resolve("place-" + place);
            copy(whole.resolve("open"), data.resolve("journal"));
            String how = damage(EmbeddedDatabase.file(data.resolve("journal")), place, random);
            try {
                JournalCheck.open(data);
            } catch (JournalLoss loss) {
                assertTrue(loss.getMessage().contains("bios restore"), how);
                refused++;
                continue;
            } catch (DatabaseInUse wrong) {
                fail(how, wrong);
            }
            Map<String, Object> now = read(data);
            boolean damaged = false;
            for (String id : ENTITIES) {
                if (now.get(id) instanceof Throwable why) {
                    damaged = true;
                    assertTrue(JournalDamaged.isCause(why), how + ": " + why);
                } else assertEquals(written.get(id), now.get(id), how);
            }
            if (damaged) unavailable++;
            else same++;
        }
        System.out.println(PLACES + " places: " + same + " the same, " + refused + " refused, " + unavailable
                + " with an entity that is damaged");
        assertTrue(refused > 0 && same > 0);
    }
}
