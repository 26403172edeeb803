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
import java.time.InstantSource;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Queue;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Blobs in Cassandra: chunks of 1 MiB, each in a partition of its own, under the id of the upload that wrote
/// them, and then one row that makes the upload visible as the blob. That row is changed by lightweight
/// transactions only, so that whoever replaces or deletes an upload knows which, and deletes its chunks. What
/// a crash has left of an upload is swept two days later.
public final class CassandraBlobStore implements BlobStore, AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(CassandraBlobStore.class);
    private static final int CHUNK_BYTES = 1 << 20;
    private static final int CHUNKS_AT_ONCE = 4;
    private static final int BUCKETS = 16;
    private static final long DAY_MILLIS = 86_400_000;
    /// An upload that is older is not under way any more.
    private static final int DAYS_UNDER_WAY = 2;
    /// Rows of uploads live so long.
    private static final int DAYS_REMEMBERED = 30;
    private static final int MOST_ROOTS_REMEMBERED = 10_000;

    private static final String PUT_CHUNK =
            "INSERT INTO KEYSPACE.blob_chunks (upload, chunk, data) VALUES (?, ?, ?)";
    private static final String CHUNK =
            "SELECT data FROM KEYSPACE.blob_chunks WHERE upload = ? AND chunk = ?";
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
    private static final String BEGIN =
            "INSERT INTO KEYSPACE.blob_uploads (day, upload, scope, sha256) VALUES (?, ?, ?, ?)";
    private static final String END = "DELETE FROM KEYSPACE.blob_uploads WHERE day = ? AND upload = ?";
    private static final String BEGUN =
            "SELECT upload, scope, sha256 FROM KEYSPACE.blob_uploads WHERE day = ?";

    private final CassandraConnection connection;
    private final InstantSource clock;
    private final Set<String> roots = ConcurrentHashMap.newKeySet();

    /// Where a blob's bytes lie.
    private record Upload(UUID id, int chunks) {}

    /// An upload with the day under which it is remembered until it is done or deleted.
    private record Intent(int day, UUID upload) {}

    private CassandraBlobStore(CassandraSettings settings, InstantSource clock) {
        this.connection = CassandraConnection.to(settings);
        this.clock = clock;
    }

    /// Opens the store; waits for Cassandra, whose schema must be there.
    public static CassandraBlobStore open(CassandraSettings settings, InstantSource clock) {
        var store = new CassandraBlobStore(settings, clock);
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
        UUID upload = UUID.randomUUID(); // edge: a name of its own
        Intent intent = begin(cql, upload, scope, "");
        var out = new ChunkedOutput(cql, upload);
        try {
            content.writeTo(out);
            out.finish();
            var id = new BlobId(scope, Digests.hex(out.digest));
            // From here on a sweep can tell whether this upload is the blob.
            await(cql.ask(BEGIN, intent.day(), upload, scope, id.sha256()));
            remember(cql, scope);
            publish(cql, id, new Upload(upload, out.chunks), out.bytes);
            await(cql.ask(END, intent.day(), upload));
            return new BlobRef(id, out.bytes);
        } catch (IOException | DriverException failed) {
            throw new UncheckedIOException("a blob of " + scope + " cannot be written: " + failed,
                    failed instanceof IOException io ? io : new IOException(failed));
        } finally {
            out.abandonUnlessFinished(intent);
        }
    }

    private Intent begin(Cql cql, UUID upload, String scope, String sha256) {
        var intent = new Intent((int) (clock.millis() / DAY_MILLIS), upload);
        within("a blob of " + scope + " cannot be written", () ->
                await(cql.ask(BEGIN, intent.day(), upload, scope, sha256)));
        return intent;
    }

    private void remember(Cql cql, String scope) {
        String root = root(scope);
        if (roots.contains(root)) return;
        await(cql.ask(ROOT, scope.split("/")[0], root));
        if (roots.size() < MOST_ROOTS_REMEMBERED) roots.add(root);
    }

    /// Makes an upload the blob `id`, in place of another if there is one.
    private void publish(Cql cql, BlobId id, Upload ours, long bytes) {
        Object[] key = key(id);
        while (true) {
            Optional<Upload> before = current(cql, id);
            if (before.filter(u -> u.id().equals(ours.id())).isPresent()) return;
            Optional<Intent> old = before.map(u -> begin(cql, u.id(), id.scope(), id.sha256()));
            boolean applied = before.isEmpty()
                    ? decided(cql, CREATE, ours.id(), bytes, ours.chunks(), clock.millis(), key[0], key[1],
                            key[2], key[3])
                    : decided(cql, REPLACE, ours.id(), bytes, ours.chunks(), clock.millis(), key[0], key[1],
                            key[2], key[3], before.get().id());
            // Not applied, or nobody knows: look again.
            if (applied) {
                before.ifPresent(u -> discard(cql, u, old.get()));
                return;
            }
        }
    }

    @Override public void delete(BlobId id) {
        Cql cql = connection.await();
        Object[] key = key(id);
        within("blob " + id + " cannot be deleted", () -> {
            Optional<Upload> found = current(cql, id);
            while (found.isPresent()) {
                Upload upload = found.get();
                Intent intent = begin(cql, upload.id(), id.scope(), id.sha256());
                boolean applied = decided(cql, DELETE, key[0], key[1], key[2], key[3], upload.id());
                found = applied ? Optional.empty() : current(cql, id);
                if (found.filter(u -> u.id().equals(upload.id())).isEmpty()) discard(cql, upload, intent);
                // Replaced meanwhile: that one came after this deletion.
                if (!applied && found.filter(u -> !u.id().equals(upload.id())).isPresent()) return null;
            }
            return null;
        });
    }

    /// A lightweight transaction. It may say no where an attempt whose outcome was not learnt has done it:
    /// the caller looks again.
    private static boolean decided(Cql cql, String text, Object... values) {
        return await(cql.patience().with(() -> cql.decide(text, values))).wasApplied();
    }

    private static Optional<Upload> current(Cql cql, BlobId id) {
        return await(cql.askSerially(FIND, key(id))).map(row ->
                new Upload(row.getUuid("upload"), row.getInt("chunks")));
    }

    /// Deletes the chunks of an upload that is nobody's.
    private static void discard(Cql cql, Upload upload, Intent intent) {
        for (int chunk = 0; chunk < upload.chunks(); chunk++)
            await(cql.ask(DELETE_CHUNK, upload.id(), chunk));
        await(cql.ask(END, intent.day(), upload.id()));
    }

    /// Deletes what uploads have left that began more than two days ago and never ended.
    ///
    /// @return how many uploads
    public int sweep() {
        Cql cql = connection.await();
        int today = (int) (clock.millis() / DAY_MILLIS);
        int swept = 0;
        for (int day = today - DAYS_REMEMBERED; day < today - DAYS_UNDER_WAY; day++)
            for (Row row : await(cql.ask(BEGUN, day).thenCompose(cql::all))) {
                UUID upload = row.getUuid("upload");
                String sha256 = row.getString("sha256");
                boolean used = !sha256.isEmpty() && current(cql, new BlobId(row.getString("scope"), sha256))
                        .filter(u -> u.id().equals(upload)).isPresent();
                if (!used) {
                    deleteChunks(cql, upload);
                    swept++;
                    LOG.info("deleted what an interrupted upload to {} has left", row.getString("scope"));
                }
                await(cql.ask(END, day, upload));
            }
        return swept;
    }

    /// All of them; chunks are written a few at once, so one may be missing before the last.
    private static void deleteChunks(Cql cql, UUID upload) {
        int missing = 0;
        for (int chunk = 0; missing <= CHUNKS_AT_ONCE; chunk++) {
            boolean there = Cql.first(await(cql.ask(CHUNK, upload, chunk))).isPresent();
            missing = there ? 0 : missing + 1;
            if (there) await(cql.ask(DELETE_CHUNK, upload, chunk));
        }
    }

    @Override public InputStream open(BlobRef ref) {
        Cql cql = connection.await();
        Upload upload = within("blob " + ref.id() + " cannot be read", () -> found(cql, ref.id()))
                .orElseThrow(() -> new BlobMissing(ref.id()));
        return new CheckedStream(ref, new ChunkedInput(cql, ref.id(), upload));
    }

    private static Optional<Upload> found(Cql cql, BlobId id) {
        return Cql.first(await(cql.ask(FIND, key(id)))).map(row ->
                new Upload(row.getUuid("upload"), row.getInt("chunks")));
    }

    @Override public boolean exists(BlobId id) {
        Cql cql = connection.await();
        return within("blob " + id + " cannot be looked up", () -> found(cql, id)).isPresent();
    }

    @Override public List<Listed> list(String scope) {
        Cql cql = connection.await();
        return within("the blobs of " + scope + " cannot be listed", () -> {
            List<String> under = scope.contains("/") ? List.of(root(scope))
                    : await(cql.ask(ROOTS, scope).thenCompose(cql::all)).stream()
                            .map(row -> row.getString("root")).toList();
            var found = new ArrayList<Listed>();
            for (String root : under) {
                // '0' is the character after '/'.
                List<CompletionStage<List<Row>>> parts = IntStream.range(0, BUCKETS).mapToObj(bucket ->
                        cql.ask(LIST, root, bucket, scope, scope + "0").thenCompose(cql::all)).toList();
                for (var part : parts)
                    for (Row row : await(part)) listed(row, scope).ifPresent(found::add);
            }
            return found;
        });
    }

    private static Optional<Listed> listed(Row row, String scope) {
        String own = row.getString("scope");
        if (!own.equals(scope) && !own.startsWith(scope + "/")) return Optional.empty();
        return Optional.of(new Listed(new BlobRef(new BlobId(own, row.getString("sha256")),
                row.getLong("bytes")), row.getLong("modified")));
    }

    /// The first two words of a scope: those of one run share them.
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

    private interface Work<T> {
        T get();
    }

    private static <T> T within(String failure, Work<T> work) {
        try {
            return work.get();
        } catch (DriverException failed) {
            throw new UncheckedIOException(failure + ": " + failed.getMessage(), new IOException(failed));
        }
    }

    private static <T> T await(CompletionStage<T> stage) {
        return Cql.await(stage);
    }

    /// Writes chunks as they fill, a few at the same time.
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
            writing.add(cql.ask(PUT_CHUNK, upload, chunks++, full));
            while (writing.size() >= CHUNKS_AT_ONCE) settle();
        }

        private void settle() throws IOException {
            try {
                await(writing.remove());
            } catch (DriverException failed) {
                throw new IOException(failed.getMessage(), failed);
            }
        }

        void finish() throws IOException {
            if (chunk.position() > 0) send();
            while (!writing.isEmpty()) settle();
            finished = true;
        }

        /// What the content has written before it threw is deleted, or swept later if that fails too.
        void abandonUnlessFinished(Intent intent) {
            if (finished) return;
            try {
                while (!writing.isEmpty()) settle();
                discard(cql, new Upload(upload, chunks), intent);
            } catch (IOException | RuntimeException failed) {
                LOG.warn("what an upload has left is swept later: {}", failed.getMessage());
            }
        }
    }

    /// Reads chunks in order, a few ahead.
    private static final class ChunkedInput extends InputStream {
        private final Cql cql;
        private final BlobId id;
        private final Queue<CompletionStage<AsyncResultSet>> ahead = new ArrayDeque<>();
        private Upload upload;
        private int asked;
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
            for (; asked < Math.min(next + CHUNKS_AT_ONCE, upload.chunks()); asked++)
                ahead.add(cql.ask(CHUNK, upload.id(), asked));
            try {
                Optional<Row> row = Cql.first(await(ahead.remove()));
                if (row.isPresent()) {
                    chunk = row.get().getByteBuffer("data");
                    next++;
                } else useNewer();
                return true;
            } catch (DriverException failed) {
                throw new IOException(failed.getMessage(), failed);
            }
        }

        /// A chunk is gone: the same content was put again meanwhile, and goes on there; or it is lost.
        private void useNewer() {
            Upload newer = found(cql, id).orElseThrow(() -> new BlobMissing(id));
            if (newer.id().equals(upload.id())) throw new BlobDamaged(id, "chunk " + next + " of upload "
                    + upload.id() + " is missing");
            upload = newer;
            ahead.clear();
            asked = next;
        }
    }
}
