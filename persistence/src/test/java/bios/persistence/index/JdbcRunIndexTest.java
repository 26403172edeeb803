package bios.persistence.index;

import bios.persistence.embedded.EmbeddedDatabase;
import java.nio.file.Path;
import java.time.Instant;
import org.junit.jupiter.api.io.TempDir;

class JdbcRunIndexTest extends RunIndexContract {
    @TempDir Path folder;

    @Override RunIndex open() {
        EmbeddedDatabase.createSchema(folder);
        return JdbcRunIndex.open(folder, () -> Instant.ofEpochMilli(clock.get()));
    }

    @Override void close(RunIndex index) {
        ((JdbcRunIndex) index).close();
    }
}
