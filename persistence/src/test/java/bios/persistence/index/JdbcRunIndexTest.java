package bios.persistence.index;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bios.persistence.embedded.EmbeddedDatabase;
import java.nio.file.Path;
import java.sql.SQLException;
import java.time.Instant;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class JdbcRunIndexTest extends RunIndexContract {
    @TempDir Path folder;

    @Override StoredRunIndex open() {
        EmbeddedDatabase.createSchema(folder);
        return JdbcRunIndex.open(folder, () -> Instant.ofEpochMilli(clock.get()));
    }

    @Test void aDamagedEntryIsLeftOutAndTheOthersAreListed() throws SQLException {
        index.put(run(1, "damaged", 3), 1);
        index.put(run(2, "damaged", 4), 1);
        try (var connection = EmbeddedDatabase.connect(EmbeddedDatabase.url(folder));
                var statement = connection.createStatement()) {
            statement.execute("UPDATE \"bios_run\" SET \"body\" = X'00' WHERE \"run\" = '" + id(1) + "'");
        }
        assertEquals(List.of(run(2, "damaged", 4)), index.runs("damaged", 10, 0).items());
    }
}
