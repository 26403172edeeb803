package bios.persistence;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.embedded.DatabaseInUse;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class StorageTest {
    @TempDir Path folder;

    private static Config all(Map<String, Object> settings) {
        return Storage.withPekkoPersistence(ConfigFactory.parseMap(settings))
                .withFallback(ConfigFactory.load()).resolve();
    }

    @Test void theDefaultsKeepEverythingInTheDataFolder() {
        Config config = all(Map.of("bios.data", folder.toString()));
        assertEquals("bios-embedded-journal", config.getString("pekko.persistence.journal.plugin"));
        assertTrue(config.getString("bios-embedded-journal.url")
                .contains(folder.resolve("journal").toString()));
        try (Storage storage = Storage.open(config)) {
            var blob = storage.blobs().put("scope", new byte[] {1});
            assertTrue(Files.exists(folder.resolve("blobs/blobs/scope").resolve(blob.id().sha256())));
            storage.samplingTasks().put("a", "alice", new byte[] {2});
            assertEquals(0, storage.index().runs("alice", 1, 0).total());
        }
        try (Storage storage = Storage.open(config)) {
            assertArrayEquals(new byte[] {2}, storage.samplingTasks().find("a").orElseThrow().body());
        }
    }

    @Test void aConfiguredFolderOverridesTheDataFolder() {
        Config config = all(Map.of("bios.data", folder.resolve("data").toString(), "bios.storage.folder",
                folder.resolve("own").toString()));
        Storage.open(config).close();
        assertTrue(Files.exists(folder.resolve("own/journal")));
        assertFalse(Files.exists(folder.resolve("data")));
    }

    @Test void cassandraIsGivenToPekkoByItsSettings() {
        Config config = all(Map.of("bios.storage.journal", "Cassandra"));
        assertEquals("bios-cassandra-journal", config.getString("pekko.persistence.journal.plugin"));
        assertEquals("bios-cassandra-snapshots", config.getString("pekko.persistence.snapshot-store.plugin"));
        assertEquals(Storage.JournalBackend.CASSANDRA, Storage.journalBackend(config));
    }

    @Test void givenSettingsOverrideThoseOfThePlugin() {
        assertEquals(7, all(Map.of("bios.data", "x", "bios-embedded-journal.circuit-breaker.max-failures", 7))
                .getInt("bios-embedded-journal.circuit-breaker.max-failures"));
    }

    @Test void wrongSettingsAreRefusedByName() {
        refused("bios.storage.journal", Map.of("bios.storage.journal", "postgres"));
        refused("bios.storage.folder", Map.of());
        refused("bios.storage.cassandra.keyspace", Map.of("bios.storage.journal", "cassandra",
                "bios.storage.cassandra.keyspace", "Not-A-Name"));
        refused("bios.storage.cassandra.contact-points", Map.of("bios.storage.journal", "cassandra",
                "bios.storage.cassandra.contact-points", List.of("host:port")));
        refused("bios.storage.cassandra.consistency", Map.of("bios.storage.journal", "cassandra",
                "bios.storage.cassandra.consistency", "ONE"));
        refused("bios.storage.blobs", Map.of("bios.data", folder.toString(), "bios.storage.blobs", "tape"));
        refused("bios.storage.s3.bucket", Map.of("bios.data", folder.toString(), "bios.storage.blobs", "s3"));
    }

    private static void refused(String setting, Map<String, Object> settings) {
        var refused = assertThrows(IllegalArgumentException.class, () -> Storage.open(all(settings)).close());
        assertTrue(refused.getMessage().contains(setting), refused.getMessage());
    }

    @Test void aFailedOpeningLeavesNothingOpen() {
        assertThrows(
                IllegalArgumentException.class, () -> Storage.open(all(Map.of("bios.data", folder.toString(),
                "bios.storage.blobs", "s3"))));
        // the journal's file is free again
        try (Storage storage = Storage.open(all(Map.of("bios.data", folder.toString())))) {
            assertEquals(0, storage.index().runs("alice", 1, 0).total());
        } catch (DatabaseInUse held) {
            throw new AssertionError(held);
        }
    }
}
