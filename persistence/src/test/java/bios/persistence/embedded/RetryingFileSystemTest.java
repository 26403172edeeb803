package bios.persistence.embedded;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Path;
import java.sql.DriverManager;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Simulates a full disk; damage.py tests a real one.
class RetryingFileSystemTest {
    @TempDir Path folder;

    @Test void aWriteWaitsWhileTheDiskIsFull() throws Exception {
        var tries = new AtomicInteger();
        assertEquals(7, RetryingFileSystem.write(folder, () -> {
            if (tries.incrementAndGet() < 3) throw new IOException("No space left on device");
            return 7;
        }));
        assertEquals(3, tries.get());
    }

    @Test void aWriteThatFailsForAnotherReasonFails() {
        assertThrows(IOException.class, () -> RetryingFileSystem.write(folder, () -> {
            throw new IOException("Input/output error");
        }));
    }

    @Test void aThreadThatIsInterruptedDoesNotWait() {
        Thread.currentThread().interrupt();
        assertThrows(IOException.class, () -> RetryingFileSystem.write(folder, () -> {
            throw new IOException("No space left on device");
        }));
        assertTrue(Thread.interrupted(), "it stays interrupted");
    }

    @Test void aDatabaseIsTheSameWithAndWithoutTheRetryingFileSystem() throws Exception {
        String retrying = EmbeddedDatabase.url(folder);
        String plain = retrying.replace(":" + RetryingFileSystem.SCHEME + ":", ":file:");
        for (String url : new String[] {plain, retrying, plain, retrying})
            try (var connection = DriverManager.getConnection(url, "sa", "");
                    var statement = connection.createStatement()) {
                statement.execute("CREATE TABLE IF NOT EXISTS \"t\" (\"x\" INTEGER)");
                statement.execute("INSERT INTO \"t\" VALUES 1");
            }
        try (var connection = DriverManager.getConnection(retrying, "sa", "");
                var rows = connection.createStatement().executeQuery("SELECT COUNT(*) FROM \"t\"")) {
            rows.next();
            assertEquals(4, rows.getInt(1));
        }
    }
}
