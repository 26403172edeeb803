package bios.persistence.sampling;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.embedded.EmbeddedDatabase;
import java.nio.file.Path;
import java.time.Instant;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class JdbcSamplingTaskStoreTest extends SamplingTaskStoreContract {
    @TempDir Path folder;

    @Override SamplingTaskStore open() {
        EmbeddedDatabase.createSchema(folder);
        return JdbcSamplingTaskStore.open(folder, () -> Instant.ofEpochMilli(clock.get()));
    }

    @Override void close(SamplingTaskStore tasks) {
        ((JdbcSamplingTaskStore) tasks).close();
    }

    @Test void oldTasksAreDeleted() {
        tasks.put("old", "alice", new byte[1]);
        clock.addAndGet(1000);
        tasks.put("young", "alice", new byte[1]);
        clock.addAndGet(500);
        assertEquals(1, tasks.deleteOlderThan(1000));
        assertTrue(tasks.find("old").isEmpty());
        assertTrue(tasks.find("young").isPresent());
    }
}
