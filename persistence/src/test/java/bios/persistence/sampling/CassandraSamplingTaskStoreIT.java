package bios.persistence.sampling;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import bios.persistence.cassandra.TestCassandra;
import java.time.Instant;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.ResourceLock;

@ResourceLock(TestCassandra.LOCK)
class CassandraSamplingTaskStoreIT extends SamplingTaskStoreContract {
    @Override SamplingTaskStore open() {
        return CassandraSamplingTaskStore.open(CassandraSettings.of(TestCassandra.tables()),
                () -> Instant.ofEpochMilli(clock.get()));
    }

    @Override void close(SamplingTaskStore tasks) {
        ((CassandraSamplingTaskStore) tasks).close();
    }

    @Test void aTaskHasItsTimeToLive() {
        tasks.put("mortal", "alice", new byte[1]);
        try (var connection = CassandraConnection.to(CassandraSettings.of(TestCassandra.tables()))) {
            int seconds = Cql.firstRow(Cql.await(connection.await().execute(
                    "SELECT TTL(body) AS left FROM KEYSPACE.sampling_tasks WHERE id = ?", "mortal")))
                    .orElseThrow().getInt("left");
            assertTrue(seconds > 80_000 && seconds <= 86_400, "" + seconds);
        }
    }

    @Test void aTaskThatIsTooLargeForARowIsRefusedByName() {
        var refused = assertThrows(IllegalArgumentException.class,
                () -> tasks.put("huge", "alice", new byte[9 << 20]));
        assertTrue(refused.getMessage().contains("max-row-bytes"), refused.getMessage());
    }
}
