package bios.persistence.index;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.TestCassandra;
import java.time.Instant;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.ResourceLock;

@ResourceLock(TestCassandra.LOCK)
class CassandraRunIndexIT extends RunIndexContract {
    @Override StoredRunIndex open() {
        return CassandraRunIndex.open(CassandraSettings.of(TestCassandra.tables()),
                () -> Instant.ofEpochMilli(clock.get()));
    }

    @Test void aLateWriteDoesNotRestoreARemovedRun() {
        index.put(run(77, "alice77", 0), 5);
        index.remove(id(77));
        index.put(run(77, "alice77", 0), 4);
        assertEquals(0, index.runs("alice77", 10, 0).total());
        index.put(run(77, "alice77", 0), 6);
        assertEquals(1, index.runs("alice77", 10, 0).total());
    }
}
