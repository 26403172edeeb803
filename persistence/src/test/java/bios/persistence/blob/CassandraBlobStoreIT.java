package bios.persistence.blob;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import bios.persistence.cassandra.TestCassandra;
import bios.protocol.checkpoint.BlobRef;
import com.datastax.oss.driver.api.core.cql.Row;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.ResourceLock;

@ResourceLock(TestCassandra.LOCK)
class CassandraBlobStoreIT extends BlobStoreContract {
    private static final long DAY = 86_400_000;
    private static final long NOW = 20_000 * DAY;
    private static final AtomicLong CLOCK = new AtomicLong(NOW);
    private static final AtomicLong ELAPSED = new AtomicLong();
    private static CassandraBlobStore store;
    private static CassandraConnection connection;

    @BeforeAll static void open() {
        var settings = CassandraSettings.of(TestCassandra.tables());
        connection = CassandraConnection.to(settings);
        store = CassandraBlobStore.open(settings, () -> Instant.ofEpochMilli(CLOCK.get()),
                ELAPSED::get);
    }

    @AfterAll static void close() {
        store.close();
        connection.close();
    }

    @BeforeEach void today() {
        CLOCK.set(NOW);
    }

    private static void elapse(Duration time) {
        ELAPSED.addAndGet(time.toNanos());
    }

    @Override BlobStore store() {
        return store;
    }

    /// Each chunk has its own buffer, which is freed after the chunk is written.
    @Override long writingMayAllocate(long contentBytes) {
        return contentBytes + MAX_ALLOCATED;
    }

    private static List<Row> rows(String text, Object... values) {
        Cql cql = connection.await();
        return Cql.await(cql.execute(text, values).thenCompose(cql::allRows));
    }

    private static UUID upload(BlobRef ref) {
        return rows("SELECT scope, sha256, upload FROM KEYSPACE.blobs").stream()
                .filter(row -> ref.id().scope().equals(row.getString("scope"))
                        && ref.id().sha256().equals(row.getString("sha256"))).findFirst().orElseThrow()
                .getUuid("upload");
    }

    @Override byte[] stored(BlobRef ref) {
        ByteBuffer data = rows("SELECT data FROM KEYSPACE.blob_chunks WHERE upload = ? AND chunk = 0",
                upload(ref)).getFirst().getByteBuffer("data");
        byte[] bytes = new byte[data.remaining()];
        data.get(bytes);
        return bytes;
    }

    @Override void damage(BlobRef ref, byte[] bytes) {
        rows("INSERT INTO KEYSPACE.blob_chunks (upload, chunk, data) VALUES (?, 0, ?)", upload(ref),
                ByteBuffer.wrap(bytes));
    }

    /// Chunks that belong to no blob, and unfinished uploads.
    @Override List<String> leftovers() {
        Set<UUID> used = new HashSet<>();
        for (Row row : rows("SELECT upload FROM KEYSPACE.blobs")) used.add(row.getUuid("upload"));
        List<String> found = new ArrayList<>();
        for (Row row : rows("SELECT upload, chunk FROM KEYSPACE.blob_chunks"))
            if (!used.contains(row.getUuid("upload")))
                found.add("chunk " + row.getUuid("upload") + " " + row.getInt("chunk"));
        for (Row row : rows("SELECT upload, scope FROM KEYSPACE.blob_uploads"))
            found.add("upload " + row.getUuid("upload") + " to " + row.getString("scope"));
        return found;
    }

    @Test void aLostChunkIsFoundOnReading() {
        BlobRef ref = store.put("lost/chunk", bytes(5 << 20, 4));
        rows("DELETE FROM KEYSPACE.blob_chunks WHERE upload = ? AND chunk = 3", upload(ref));
        var damaged = assertThrows(BlobDamaged.class, () -> read(ref));
        assertTrue(damaged.getMessage().contains("chunk 3"), damaged.getMessage());
        store.put("lost/chunk", bytes(5 << 20, 4));
        assertArrayEquals(bytes(5 << 20, 4), read(ref));
    }

    @Test void aReaderContinuesWhenTheSameContentIsStoredAgain() throws Exception {
        byte[] content = bytes(12 << 20, 6);
        BlobRef ref = store.put("read/again", content);
        try (var in = store.open(ref)) {
            byte[] begin = in.readNBytes(1 << 20);
            store.put("read/again", content);
            byte[] rest = in.readAllBytes();
            assertEquals(content.length, begin.length + rest.length);
        }
    }

    /// Starts `work` and interrupts it when it has deleted some chunks of an upload, from either end.
    private static void interrupt(Runnable work, UUID upload, int first, int last)
            throws InterruptedException {
        var thread = Thread.ofPlatform().start(() -> {
            try {
                work.run();
            } catch (RuntimeException _) {
                // interrupted
            }
        });
        while (thread.isAlive() && has(upload, first) && has(upload, last)) Thread.onSpinWait();
        thread.interrupt();
        thread.join();
    }

    private static boolean has(UUID upload, int chunk) {
        return !rows("SELECT chunk FROM KEYSPACE.blob_chunks WHERE upload = ? AND chunk = ?", upload, chunk)
                .isEmpty();
    }

    private static long chunks(UUID upload) {
        return rows("SELECT upload FROM KEYSPACE.blob_chunks").stream()
                .filter(row -> upload.equals(row.getUuid("upload"))).count();
    }

    @Test void anInterruptedDeletionAndAnInterruptedSweepLeakNothing() throws Exception {
        int count = 400;
        BlobRef ref = store.put("interrupted/deletion", bytes(10, 8));
        UUID upload = upload(ref);
        // As if it had many chunks.
        for (int chunk = 1; chunk < count; chunk++) rows(
                "INSERT INTO KEYSPACE.blob_chunks (upload, chunk, data) VALUES (?, ?, ?)", upload, chunk,
                ByteBuffer.wrap(new byte[10]));
        Row row = rows("SELECT root, bucket, scope, sha256, upload FROM KEYSPACE.blobs").stream()
                .filter(r -> upload.equals(r.getUuid("upload"))).findFirst().orElseThrow();
        rows("UPDATE KEYSPACE.blobs SET chunks = ? WHERE root = ? AND bucket = ? AND scope = ? AND sha256 = ?"
                + " IF upload = ?", count, row.getString("root"), row.getInt("bucket"),
                row.getString("scope"), row.getString("sha256"), upload);
        interrupt(() -> store.delete(ref.id()), upload, 6, count - 7);
        long left = chunks(upload);
        assertTrue(left > 20 && left < count, "the deletion was interrupted: " + left);
        assertEquals(0, store.deleteInterruptedUploads());
        elapse(Duration.ofDays(2));
        interrupt(store::deleteInterruptedUploads, upload, 6, (int) left - 7);
        assertTrue(chunks(upload) > 0, "the sweep was interrupted");
        store.deleteInterruptedUploads();
        assertEquals(0, chunks(upload));
        assertEquals(List.of(), leftovers());
    }

    @Test void anUploadInProgressIsNotSweptHoweverClocksDiffer() {
        for (long ahead : new long[] {-20, -5, 3, 5, 20}) {
            byte[] content = bytes(3 << 20, (int) ahead);
            BlobRef ref = store.put("progress/differs", out -> {
                out.write(content, 0, 2 << 20);
                CLOCK.set(NOW + ahead * DAY);
                assertEquals(0, store.deleteInterruptedUploads());
                elapse(Duration.ofHours(20));
                assertEquals(0, store.deleteInterruptedUploads());
                CLOCK.set(NOW);
                out.write(content, 2 << 20, 1 << 20);
            });
            assertArrayEquals(content, read(ref), ahead + " days");
        }
        assertEquals(List.of(), leftovers());
    }

    @Test void anUploadThatTakesLongerThanADayIsNotPublished() {
        var late = assertThrows(UncheckedIOException.class, () -> store.put("progress/late", out -> {
            out.write(bytes(2 << 20, 1));
            elapse(Duration.ofHours(25));
        }));
        assertTrue(late.getMessage().contains("write it again"), late.getMessage());
        assertEquals(List.of(), store.list("progress/late"));
        assertEquals(List.of(), leftovers());
    }

    @Test void theRemainsOfAnInterruptedUploadAreDeletedTwoDaysAfterTheyWereFound() {
        BlobRef kept = store.put("swept/kept", bytes(10, 1));
        int day = (int) (NOW / DAY);
        UUID half = UUID.randomUUID();
        for (int chunk : new int[] {0, 1, 3}) rows(
                "INSERT INTO KEYSPACE.blob_chunks (upload, chunk, data) VALUES"
                + " (?, ?, ?)", half, chunk, ByteBuffer.wrap(new byte[10]));
        String begun = "INSERT INTO KEYSPACE.blob_uploads (day, upload, scope, sha256) VALUES (?, ?, ?, ?)";
        rows(begun, day, half, "swept/half", "");
        // its row was written, only the last step is missing
        rows(begun, day, upload(kept), "swept/kept", kept.id().sha256());
        CLOCK.set(NOW + 10 * DAY);
        assertEquals(0, store.deleteInterruptedUploads());
        elapse(Duration.ofDays(1));
        assertEquals(0, store.deleteInterruptedUploads());
        elapse(Duration.ofDays(1));
        assertEquals(1, store.deleteInterruptedUploads());
        assertArrayEquals(bytes(10, 1), read(kept));
        assertEquals(List.of(), leftovers());
    }
}
