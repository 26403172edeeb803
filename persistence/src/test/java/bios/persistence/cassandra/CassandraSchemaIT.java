package bios.persistence.cassandra;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.Storage;
import com.datastax.oss.driver.api.core.CqlSession;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.ResourceLock;

@ResourceLock(TestCassandra.LOCK)
class CassandraSchemaIT {
    private static Config config(String keyspace) {
        return ConfigFactory.parseMap(Map.of("bios.storage.journal", "cassandra", "bios.storage.blobs",
                "cassandra")).withFallback(TestCassandra.config(TestCassandra.shared(), keyspace, Map.of()));
    }

    @Test void missingOlderAndNewerTablesAreRefusedByTheCommandThatHelps() {
        Config config = config("refused");
        var settings = CassandraSettings.of(config);
        String command = "bios schema --cassandra " + TestCassandra.shared().contactPoint()
                + " --keyspace refused";
        var missing = assertThrows(SchemaMismatch.class, () -> Storage.open(config));
        assertTrue(missing.getMessage().contains(command), missing.getMessage());
        CassandraSchema.create(settings);
        CassandraSchema.check(settings);
        Storage.open(config).close();
        setVersion(settings, CassandraSchema.VERSION + 1);
        var newer = assertThrows(SchemaMismatch.class, () -> Storage.open(config));
        assertTrue(newer.getMessage().contains("newer Bios"), newer.getMessage());
        assertThrows(SchemaMismatch.class, () -> CassandraSchema.create(settings));
        setVersion(settings, CassandraSchema.VERSION);
        Storage.open(config).close();
    }

    private static void setVersion(CassandraSettings settings, int version) {
        try (CqlSession session = Cql.await(CassandraConnection.connect(settings))) {
            session.execute("INSERT INTO " + settings.keyspace() + ".schema_version (part, version) VALUES"
                    + " ('bios', " + version + ")");
        }
    }

    @Test void creatingTheSchemaAgainDoesNothing() {
        var settings = CassandraSettings.of(TestCassandra.tables());
        var said = CassandraSchema.create(settings);
        assertTrue(said.getLast().contains("nothing to do"), said.toString());
    }

    private static String grace(CqlSession session, String keyspace) {
        var found = new TreeSet<String>();
        for (var table : session.execute("SELECT table_name, gc_grace_seconds, compaction FROM"
                + " system_schema.tables WHERE keyspace_name = '" + keyspace + "'"))
            if (List.of("events", "blob_chunks", "blobs").contains(table.getString("table_name")))
                found.add(table.getInt("gc_grace_seconds") + " " + Optional.ofNullable(table.getMap(
                        "compaction", String.class, String.class).get("tombstone_compaction_interval"))
                        .orElse("default"));
        return String.join(", ", found);
    }

    @Test void deletionsStayForAMinuteWhereThereIsOneReplicaAndForDaysWhereThereAreMore() {
        var settings = CassandraSettings.of(TestCassandra.config(TestCassandra.shared(), "grace", Map.of()));
        CassandraSchema.create(settings);
        try (CqlSession session = Cql.await(CassandraConnection.connect(settings))) {
            assertEquals("60 60, 60 default", grace(session, "grace"));
            session.execute("ALTER KEYSPACE grace WITH replication = {'class': 'NetworkTopologyStrategy',"
                    + " 'datacenter1': 3}");
            assertTrue(CassandraSchema.setGrace(session, "grace").orElseThrow().contains("ten days"));
            assertEquals("86400 86400, 864000 default", grace(session, "grace"));
            assertEquals(Optional.empty(), CassandraSchema.setGrace(session, "grace"));
            session.execute("ALTER TABLE grace.blobs WITH gc_grace_seconds = 7200");
            session.execute("ALTER KEYSPACE grace WITH replication = {'class': 'NetworkTopologyStrategy',"
                    + " 'datacenter1': 1}");
            assertTrue(CassandraSchema.setGrace(session, "grace").orElseThrow().contains("a minute"));
            assertEquals("60 60, 7200 default", grace(session, "grace"));
        }
    }

    @Test void connectionsWithTheSameSettingsShareOneSession() {
        var settings = CassandraSettings.of(TestCassandra.tables());
        var one = CassandraConnection.to(settings);
        try (var two = CassandraConnection.to(settings)) {
            assertEquals(one.await(), two.await());
            one.close();
            two.await().session().execute("SELECT release_version FROM system.local");
        }
    }
}
