package bios.persistence.blob;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import com.datastax.oss.driver.api.core.DriverException;
import com.datastax.oss.driver.api.core.cql.AsyncResultSet;
import com.datastax.oss.driver.api.core.cql.Row;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.LongSupplier;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Blobs in Cassandra. An upload writes chunks of 1 MiB, each in a partition of its own, under the id of the
/// upload, and then one row that makes the upload visible as the blob. Only lightweight transactions change
/// that row, so that a put or a deletion knows which upload it replaced, and deletes its chunks. The remains
/// of an interrupted upload are deleted when a process has found them for a day and a half. That time, and
/// the shorter one that an upload may take, are measured: no clock of another process is compared with one's
/// own. The number of chunks limits a blob to 2 PiB.
public final class CassandraBlobStore implements BlobStore, AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(CassandraBlobStore.class);
    private static final int CHUNK_BYTES = 1 << 20;
    private static final int CHUNKS_IN_FLIGHT = 4;
    private static final int BUCKETS = 16;
    private static final long DAY_MILLIS = 86_400_000;
    /// An upload that takes longer is given up before it is published.
    private static final Duration MAX_UPLOAD = Duration.ofDays(1);
    /// An upload that this process has found unfinished for so long is not in progress any more.
    private static final Duration ABANDONED_AFTER = Duration.ofHours(36);
    /// Time to live of the rows of uploads. Clocks that differ by more hide rows until they are gone.
    private static final int UPLOAD_ROW_DAYS = 30;
    private static final int MAX_CACHED_ROOTS = 10_000;

    private static final String PUT_CHUNK =
            "INSERT INTO KEYSPACE.blob_chunks (upload, chunk, data) VALUES (?, ?, ?)";
    private static final String CHUNK =
            "SELECT data FROM KEYSPACE.blob_chunks WHERE upload = ? AND chunk = ?";
    private static final String HAS_CHUNK =
            "SELECT chunk FROM KEYSPACE.blob_chunks WHERE upload = ? AND chunk = ?";
    private static final String DELETE_CHUNK =
            "DELETE FROM KEYSPACE.blob_chunks WHERE upload = ? AND chunk = ?";
    private static final String ROOT = "INSERT INTO KEYSPACE.blob_roots (first, root) VALUES (?, ?)";
    private static final String ROOTS = "SELECT root FROM KEYSPACE.blob_roots WHERE first = ?";
    private static final String FIND = """
            SELECT upload, bytes, chunks FROM KEYSPACE.blobs
            WHERE root = ? AND bucket = ? AND scope = ? AND sha256 = ?""";
    private static final String CREATE = """
            INSERT INTO KEYSPACE.blobs (upload, bytes, chunks, modified, root, bucket, scope, sha256)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS""";
    private static final String REPLACE = """
            UPDATE KEYSPACE.blobs SET upload = ?, bytes = ?, chunks = ?, modified = ?
            WHERE root = ? AND bucket = ? AND scope = ? AND sha256 = ? IF upload = ?""";
    private static final String DELETE = """
            DELETE FROM KEYSPACE.blobs WHERE root = ? AND bucket = ? AND scope = ? AND sha256 = ?
            IF upload = ?""";
    private static final String LIST = """
            SELECT scope, sha256, bytes, modified FROM KEYSPACE.blobs
            WHERE root = ? AND bucket = ? AND scope >= ? AND scope < ?""";
    private static final String RECORD_UPLOAD =
            "INSERT INTO KEYSPACE.blob_uploads (day, upload, scope, sha256) VALUES (?, ?, ?, ?)";
    private static final String FORGET_UPLOAD =
            "DELETE FROM KEYSPACE.blob_uploads WHERE day = ? AND upload = ?";
    private static final String UPLOADS_OF_DAY =
            "SELECT upload, scope, sha256 FROM KEYSPACE.blob_uploads WHERE day = ?";

    private final CassandraConnection connection;
    private final InstantSource clock;
    private final LongSupplier nanos;
    private final Set<String> roots = ConcurrentHashMap.newKeySet();
    /// When a sweep first found the uploads that the last one has found unfinished, in monotonic nanoseconds.
    private final Map<UploadRow, Long> unfinished = new HashMap<>();

    /// The chunks of a blob.
    private record Upload(UUID id, int chunks) {}

    /// The row of an upload in progress, with the day that is its partition; deleted when the upload is
    /// published or its chunks are deleted.
    private record UploadRow(int day, UUID upload) {}

    private CassandraBlobStore(CassandraSettings settings, InstantSource clock, LongSupplier nanos) {
        this.connection = CassandraConnection.to(settings);
        this.clock = clock;
        this.nanos = nanos;
    }

    /// Opens the store; waits for Cassandra, whose schema must exist.
    public static CassandraBlobStore open(CassandraSettings settings, InstantSource clock) {
        return open(settings, clock, System::nanoTime); // edge: a monotonic clock
    }

    /// @param nanos monotonic clock in nanoseconds
    static CassandraBlobStore open(CassandraSettings settings, InstantSource clock, LongSupplier nanos) {
        var store = new CassandraBlobStore(settings, clock, nanos);
        try {
            store.connection.await();
        } catch (RuntimeException failed) {
            store.close();
            throw failed;
        }
        return store;
    }

    @Override public void close() {
        connection.close();
    }

    @Override public BlobRef put(String scope, Content content) {
        Cql cql = connection.await();
        UUID upload = UUID.randomUUID(); // edge: a unique name
        long began = nanos.getAsLong();
        UploadRow row = recordUpload(cql, upload, scope, "");
        var out = new ChunkedOutput(cql, upload);
        try {
            content.writeTo(out);
            if (nanos.getAsLong() - began > MAX_UPLOAD.toNanos())
                throw new IOException("the upload took longer than " + MAX_UPLOAD + "; write it again");
            out.finish();
            var id = new BlobId(scope, Digests.hex(out.digest));
            // From here on, [#deleteInterruptedUploads] can tell whether this upload is the blob.
            await(cql.execute(RECORD_UPLOAD, row.day(), upload, scope, id.sha256()));
            recordRoot(cql, scope);
            publish(cql, id, new Upload(upload, out.chunks), out.bytes);
            await(cql.execute(FORGET_UPLOAD, row.day(), upload));
            return new BlobRef(id, out.bytes);
        } catch (IOException | DriverException failed) {
            throw new UncheckedIOException("a blob of " + scope + " cannot be written: " + failed,
                    failed instanceof IOException io ? io : new IOException(failed));
        } finally {
            out.deleteUnlessFinished(row);
        }
    }

    private UploadRow recordUpload(Cql cql, UUID upload, String scope, String sha256) {
        var row = new UploadRow((int) (clock.millis() / DAY_MILLIS), upload);
        translateFailures("a blob of " + scope + " cannot be written", () ->
                await(cql.execute(RECORD_UPLOAD, row.day(), upload, scope, sha256)));
        return row;
    }

    private void recordRoot(Cql cql, String scope) {
        String root = root(scope);
        if (roots.contains(root)) return;
        await(cql.execute(ROOT, scope.split("/")[0], root));
        if (roots.size() < MAX_CACHED_ROOTS) roots.add(root);
    }

    /// Makes an upload the blob `id`; replaces an earlier upload of it.
    private void publish(Cql cql, BlobId id, Upload ours, long bytes) {
        Object[] key = key(id);
        while (true) {
            Optional<Upload> before = readCurrent(cql, id);
            if (before.filter(u -> u.id().equals(ours.id())).isPresent()) return;
            Optional<UploadRow> old = before.map(u -> recordUpload(cql, u.id(), id.scope(), id.sha256()));
            boolean applied = before.isEmpty()
                    ? executeConditional(cql, CREATE, ours.id(), bytes, ours.chunks(), clock.millis(), key[0],
                            key[1], key[2], key[3])
                    : executeConditional(cql, REPLACE, ours.id(), bytes, ours.chunks(), clock.millis(),
                            key[0], key[1], key[2], key[3], before.get().id());
            // The transaction was not applied, or its outcome is unknown: reads the row again.
            if (applied) {
                before.ifPresent(u -> deleteUpload(cql, u, old.get()));
                return;
            }
        }
    }

    @Override public void delete(BlobId id) {
        Cql cql = connection.await();
        Object[] key = key(id);
        translateFailures("blob " + id + " cannot be deleted", () -> {
            Optional<Upload> found = readCurrent(cql, id);
            while (found.isPresent()) {
                Upload upload = found.get();
                UploadRow row = recordUpload(cql, upload.id(), id.scope(), id.sha256());
                boolean applied = executeConditional(cql, DELETE, key[0], key[1], key[2], key[3],
                        upload.id());
                found = applied ? Optional.empty() : readCurrent(cql, id);
                if (found.filter(u -> u.id().equals(upload.id())).isEmpty()) deleteUpload(cql, upload, row);
                // Replaced concurrently: that upload counts as later than this deletion.
                if (!applied && found.filter(u -> !u.id().equals(upload.id())).isPresent()) return null;
            }
            return null;
        });
    }

    /// Executes a lightweight transaction with retries. It may return false although an earlier attempt of
    /// unknown outcome was applied: the caller reads the row again.
    private static boolean executeConditional(Cql cql, String text, Object... values) {
        return await(cql.retries().call(() -> cql.executeConditional(text, values))).wasApplied();
    }

    private static Optional<Upload> readCurrent(Cql cql, BlobId id) {
        return await(cql.readSerial(FIND, key(id))).map(row ->
                new Upload(row.getUuid("upload"), row.getInt("chunks")));
    }

    /// Deletes the chunks of an upload that is not a blob, and its row.
    private static void deleteUpload(Cql cql, Upload upload, UploadRow row) {
        deleteChunks(cql, upload.id(), upload.chunks());
        await(cql.execute(FORGET_UPLOAD, row.day(), upload.id()));
    }

    /// Deletes the chunks of uploads that earlier calls have found unfinished for [#ABANDONED_AFTER]. The day
    /// of a row says where it is and not how old it is: it is of another process's clock.
    ///
    /// @return how many uploads
    public synchronized int deleteInterruptedUploads() {
        Cql cql = connection.await();
        int today = (int) (clock.millis() / DAY_MILLIS);
        int deleted = 0;
        var found = new HashSet<UploadRow>();
        for (int day = today - UPLOAD_ROW_DAYS; day <= today + UPLOAD_ROW_DAYS; day++)
            for (Row row : await(cql.execute(UPLOADS_OF_DAY, day).thenCompose(cql::allRows))) {
                UUID upload = row.getUuid("upload");
                var each = new UploadRow(day, upload);
                found.add(each);
                long now = nanos.getAsLong();
                unfinished.putIfAbsent(each, now);
                if (now - unfinished.get(each) < ABANDONED_AFTER.toNanos()) continue;
                String sha256 = row.getString("sha256");
                boolean used = !sha256.isEmpty()
                        && readCurrent(cql, new BlobId(row.getString("scope"), sha256))
                        .filter(u -> u.id().equals(upload)).isPresent();
                if (!used) {
                    deleteChunks(cql, upload);
                    deleted++;
                    LOG.info("deleted the chunks of an interrupted upload to {}", row.getString("scope"));
                }
                await(cql.execute(FORGET_UPLOAD, day, upload));
            }
        unfinished.keySet().retainAll(found);
        return deleted;
    }

    /// Deletes all chunks of an upload, however many it has. Some are written at the same time, so that one
    /// may be missing before the last.
    private static void deleteChunks(Cql cql, UUID upload) {
        int chunks = 0;
        for (int chunk = 0; chunk <= chunks + CHUNKS_IN_FLIGHT; chunk++)
            if (Cql.firstRow(await(cql.execute(HAS_CHUNK, upload, chunk))).isPresent()) chunks = chunk + 1;
        deleteChunks(cql, upload, chunks);
    }

    /// Deletes chunks, the last one first: what an interruption leaves is found again from the first one on.
    private static void deleteChunks(Cql cql, UUID upload, int chunks) {
        for (int chunk = chunks - 1; chunk >= 0; chunk--) await(cql.execute(DELETE_CHUNK, upload, chunk));
    }

    @Override public InputStream open(BlobRef ref) {
        Cql cql = connection.await();
        Upload upload = translateFailures("blob " + ref.id() + " cannot be read", () ->
                findUpload(cql, ref.id()))
                .orElseThrow(() -> new BlobMissing(ref.id()));
        return new VerifyingInputStream(ref, new ChunkedInput(cql, ref.id(), upload));
    }

    private static Optional<Upload> findUpload(Cql cql, BlobId id) {
        return Cql.firstRow(await(cql.execute(FIND, key(id)))).map(row ->
                new Upload(row.getUuid("upload"), row.getInt("chunks")));
    }

    @Override public boolean exists(BlobId id) {
        Cql cql = connection.await();
        return translateFailures("blob " + id + " cannot be looked up", () -> findUpload(cql, id))
                .isPresent();
    }

    @Override public List<ListedBlob> list(String scope) {
        Cql cql = connection.await();
        return translateFailures("the blobs of " + scope + " cannot be listed", () -> {
            List<String> under = scope.contains("/") ? List.of(root(scope))
                    : await(cql.execute(ROOTS, scope).thenCompose(cql::allRows)).stream()
                            .map(row -> row.getString("root")).toList();
            var found = new ArrayList<ListedBlob>();
            for (String root : under) {
                // '0' follows '/' in the order of characters.
                List<CompletionStage<List<Row>>> parts = IntStream.range(0, BUCKETS).mapToObj(bucket ->
                        cql.execute(LIST, root, bucket, scope, scope + "0").thenCompose(cql::allRows))
                        .toList();
                for (var part : parts)
                    for (Row row : await(part)) toListedBlob(row, scope).ifPresent(found::add);
            }
            return found;
        });
    }

    private static Optional<ListedBlob> toListedBlob(Row row, String scope) {
        String blobScope = row.getString("scope");
        if (!blobScope.equals(scope) && !blobScope.startsWith(scope + "/")) return Optional.empty();
        return Optional.of(new ListedBlob(new BlobRef(new BlobId(blobScope, row.getString("sha256")),
                row.getLong("bytes")), row.getLong("modified")));
    }

    /// The first two segments of a scope; all scopes of a run share them.
    private static String root(String scope) {
        int first = scope.indexOf('/');
        int second = first < 0 ? -1 : scope.indexOf('/', first + 1);
        return second < 0 ? scope : scope.substring(0, second);
    }

    /// Root, bucket, scope, digest.
    private static Object[] key(BlobId id) {
        return new Object[] {root(id.scope()), Character.digit(id.sha256().charAt(0), BUCKETS), id.scope(),
                id.sha256()};
    }

    private interface Request<T> {
        T get();
    }

    private static <T> T translateFailures(String failure, Request<T> request) {
        try {
            return request.get();
        } catch (DriverException failed) {
            throw new UncheckedIOException(failure + ": " + failed.getMessage(), new IOException(failed));
        }
    }

    private static <T> T await(CompletionStage<T> stage) {
        return Cql.await(stage);
    }

    /// Writes each chunk when it is full; a few writes are in flight at a time.
    private final class ChunkedOutput extends OutputStream {
        private final Cql cql;
        private final UUID upload;
        private final MessageDigest digest = Digests.sha256();
        private final Queue<CompletionStage<AsyncResultSet>> writing = new ArrayDeque<>();
        private ByteBuffer chunk = ByteBuffer.allocate(CHUNK_BYTES);
        private int chunks;
        private long bytes;
        private boolean finished;

        ChunkedOutput(Cql cql, UUID upload) {
            this.cql = cql;
            this.upload = upload;
        }

        @Override public void write(int one) throws IOException {
            write(new byte[] {(byte) one}, 0, 1);
        }

        @Override public void write(byte[] from, int offset, int count) throws IOException {
            digest.update(from, offset, count);
            bytes += count;
            for (int done = 0; done < count; ) {
                int part = Math.min(count - done, chunk.remaining());
                chunk.put(from, offset + done, part);
                done += part;
                if (!chunk.hasRemaining()) send();
            }
        }

        private void send() throws IOException {
            ByteBuffer full = chunk.flip();
            chunk = ByteBuffer.allocate(CHUNK_BYTES);
            writing.add(cql.execute(PUT_CHUNK, upload, chunks++, full));
            while (writing.size() >= CHUNKS_IN_FLIGHT) awaitOldest();
        }

        private void awaitOldest() throws IOException {
            try {
                await(writing.remove());
            } catch (DriverException failed) {
                throw new IOException(failed.getMessage(), failed);
            }
        }

        void finish() throws IOException {
            if (chunk.position() > 0) send();
            while (!writing.isEmpty()) awaitOldest();
            finished = true;
        }

        /// Deletes the chunks of a content that threw; if that fails, a sweep deletes them later.
        void deleteUnlessFinished(UploadRow row) {
            if (finished) return;
            try {
                while (!writing.isEmpty()) awaitOldest();
                deleteUpload(cql, new Upload(upload, chunks), row);
            } catch (IOException | RuntimeException failed) {
                LOG.warn("the chunks of a failed upload are deleted later: {}", failed.getMessage());
            }
        }
    }

    /// Reads chunks in order; requests a few in advance.
    private static final class ChunkedInput extends InputStream {
        private final Cql cql;
        private final BlobId id;
        private final Queue<CompletionStage<AsyncResultSet>> requested = new ArrayDeque<>();
        private Upload upload;
        private int nextRequest;
        private int next;
        private ByteBuffer chunk = ByteBuffer.allocate(0);

        ChunkedInput(Cql cql, BlobId id, Upload upload) {
            this.cql = cql;
            this.id = id;
            this.upload = upload;
        }

        @Override public int read() throws IOException {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override public int read(byte[] into, int offset, int count) throws IOException {
            if (count == 0) return 0;
            while (!chunk.hasRemaining()) if (!fetch()) return -1;
            int part = Math.min(count, chunk.remaining());
            chunk.get(into, offset, part);
            return part;
        }

        private boolean fetch() throws IOException {
            if (next == upload.chunks()) return false;
            for (; nextRequest < Math.min(next + CHUNKS_IN_FLIGHT, upload.chunks()); nextRequest++)
                requested.add(cql.execute(CHUNK, upload.id(), nextRequest));
            try {
                Optional<Row> row = Cql.firstRow(await(requested.remove()));
                if (row.isPresent()) {
                    chunk = row.get().getByteBuffer("data");
                    next++;
                } else switchToNewerUpload();
                return true;
            } catch (DriverException failed) {
                throw new IOException(failed.getMessage(), failed);
            }
        }

        /// Called when a chunk is missing: continues with a newer upload of the same content, if there is
        /// one; otherwise the chunk is lost.
        private void switchToNewerUpload() {
            Upload newer = findUpload(cql, id).orElseThrow(() -> new BlobMissing(id));
            if (newer.id().equals(upload.id())) throw new BlobDamaged(id, "chunk " + next + " of upload "
                    + upload.id() + " is missing");
            upload = newer;
            requested.clear();
            nextRequest = next;
        }
    }
}
