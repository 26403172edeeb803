package bios.persistence.sampling;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/// The contract of all stores of sampling tasks.
abstract class SamplingTaskStoreContract {
    final AtomicLong clock = new AtomicLong(1_000_000);
    SamplingTaskStore tasks;

    abstract SamplingTaskStore open();

    abstract void close(SamplingTaskStore tasks);

    @BeforeEach void begin() {
        tasks = open();
    }

    @AfterEach void end() {
        close(tasks);
    }

    @Test void aTaskStaysUntilItIsDeletedEvenIfTheStoreIsClosed() {
        tasks.put("a", "alice", new byte[] {1, 2, 3});
        tasks.put("b", "bob", new byte[0]);
        tasks.put("a", "alice", new byte[] {4});
        close(tasks);
        tasks = open();
        SamplingTaskStore.Task found = tasks.find("a").orElseThrow();
        assertEquals("alice", found.owner());
        assertEquals(1_000_000, found.storedAtMillis());
        assertArrayEquals(new byte[] {4}, found.body());
        assertEquals(0, tasks.find("b").orElseThrow().body().length);
        tasks.put("c", "bob", new byte[0]);
        tasks.remove(List.of("a", "c"));
        tasks.remove(List.of("a"));
        assertEquals(Optional.empty(), tasks.find("a"));
        assertEquals(Optional.empty(), tasks.find("c"));
        assertTrue(tasks.find("b").isPresent());
    }

    @Test void aTaskMayBeLarge() {
        byte[] body = new byte[3 << 20];
        body[body.length - 1] = 7;
        tasks.put("large", "alice", body);
        assertArrayEquals(body, tasks.find("large").orElseThrow().body());
    }
}
