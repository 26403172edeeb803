package bios.persistence.journal;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import com.datastax.oss.driver.api.core.cql.AsyncResultSet;
import com.datastax.oss.driver.api.core.cql.Row;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.function.LongPredicate;
import org.apache.pekko.persistence.SelectedSnapshot;
import org.apache.pekko.persistence.SnapshotMetadata;
import org.apache.pekko.persistence.SnapshotSelectionCriteria;
import org.apache.pekko.persistence.snapshot.japi.SnapshotStore;
import org.apache.pekko.serialization.Serialization;
import org.apache.pekko.serialization.SerializationExtension;
import scala.concurrent.Future;
import scala.jdk.javaapi.OptionConverters;

/// Pekko's snapshots in Cassandra: first chunks of at most 512 KiB under a unique id, then the row that makes
/// them visible. The chunks end with a [Checksum], except those of earlier builds, which ignore it. An
/// incomplete snapshot fails the recovery, because the events before it may be deleted.
public final class CassandraSnapshotStore extends SnapshotStore {
    private static final byte VERSION = 1;
    private static final int CHUNK_BYTES = 512 * 1024;
    private static final int ROWS_PER_PAGE = 16;
    private static final int CHUNKS_PER_PAGE = 8;
    private static final String SAVE_CHUNK =
            "INSERT INTO KEYSPACE.snapshot_chunks (id, chunk, data) VALUES (?, ?, ?)";
    private static final String SAVE = """
            INSERT INTO KEYSPACE.snapshots (persistence_id, seq, written_at, id, chunks, bytes)
            VALUES (?, ?, ?, ?, ?, ?)""";
    private static final String FIND = """
            SELECT seq, written_at, id, chunks, bytes FROM KEYSPACE.snapshots
            WHERE persistence_id = ? AND seq <= ? AND seq >= ?""";
    private static final String CHUNKS = "SELECT chunk, data FROM KEYSPACE.snapshot_chunks WHERE id = ?";
    private static final String DELETE =
            "DELETE FROM KEYSPACE.snapshots WHERE persistence_id = ? AND seq = ? AND written_at = ?";
    private static final String DELETE_CHUNKS = "DELETE FROM KEYSPACE.snapshot_chunks WHERE id = ?";

    private final CassandraConnection connection;
    private final Serialization serialization;
    private final Executor executor;

    /// Called by Pekko, which finds the class by its name.
    public CassandraSnapshotStore() {
        connection = CassandraConnection.to(CassandraSettings.of(context().system().settings().config()));
        serialization = SerializationExtension.get(context().system());
        executor = context().system().dispatchers().lookup(context().props().dispatcher());
    }

    @Override public void postStop() {
        connection.close();
    }

    @Override public Future<Void> doSaveAsync(SnapshotMetadata metadata, Object snapshot) {
        ByteBuffer bytes = bytes(metadata, snapshot);
        UUID id = UUID.randomUUID(); // edge: a unique name
        int chunks = Math.ceilDiv(bytes.remaining(), CHUNK_BYTES);
        return ScalaFutures.of(connection.ready().thenCompose(cql -> chunk(cql, id, bytes, 0, chunks)
                .thenCompose(_ -> cql.execute(SAVE, metadata.persistenceId(), metadata.sequenceNr(),
                        metadata.timestamp(), id, chunks, (long) bytes.remaining())))
                .thenApply(_ -> null));
    }

    private ByteBuffer bytes(SnapshotMetadata metadata, Object snapshot) {
        StoredPayload payload = StoredPayload.of(serialization, snapshot);
        Optional<StoredPayload> more = OptionConverters.toJava(metadata.metadata())
                .map(value -> StoredPayload.of(serialization, value));
        ByteBuffer into = ByteBuffer.allocate(
                Math.addExact(1 + payload.size() + 4, StoredPayload.size(more)));
        into.put(VERSION);
        payload.write(into);
        StoredPayload.write(into, more);
        into.putInt(Checksum.of(metadata.persistenceId(), metadata.sequenceNr(), "",
                into.slice(0, into.position())));
        return into.flip();
    }

    private static CompletionStage<Void> chunk(Cql cql, UUID id, ByteBuffer bytes, int chunk, int chunks) {
        if (chunk == chunks) return CompletableFuture.completedFuture(null);
        int from = chunk * CHUNK_BYTES;
        ByteBuffer part = bytes.slice(from, Math.min(CHUNK_BYTES, bytes.limit() - from));
        return cql.execute(SAVE_CHUNK, id, chunk, part)
                .thenCompose(_ -> chunk(cql, id, bytes, chunk + 1, chunks));
    }

    @Override public Future<Optional<SelectedSnapshot>> doLoadAsync(String persistenceId,
            SnapshotSelectionCriteria criteria) {
        return ScalaFutures.of(connection.ready().thenCompose(cql ->
                load(cql, persistenceId, criteria, Optional.empty())));
    }

    /// @param broken the snapshot that was incomplete at the first attempt, if this is the second
    private CompletionStage<Optional<SelectedSnapshot>> load(Cql cql, String persistenceId,
            SnapshotSelectionCriteria criteria, Optional<UUID> broken) {
        return cql.executePaged(
                ROWS_PER_PAGE, FIND, persistenceId, criteria.maxSequenceNr(), criteria.minSequenceNr())
                .thenCompose(page -> newest(cql, page, criteria)).thenCompose(found -> {
                    if (found.isEmpty()) return CompletableFuture.completedFuture(Optional.empty());
                    Row row = found.get();
                    UUID id = row.getUuid("id");
                    long bytes = row.getLong("bytes");
                    return cql.executePaged(CHUNKS_PER_PAGE, CHUNKS, id).thenComposeAsync(page ->
                            collect(cql, page, ByteBuffer.allocate(Math.toIntExact(bytes))), executor)
                            .thenCompose(whole -> {
                                if (whole.isPresent()) return CompletableFuture.completedFuture(Optional.of(
                                        selected(persistenceId, row, whole.get())));
                                if (broken.equals(Optional.of(id))) throw damaged(persistenceId, row);
                                // It may have been deleted between the two reads.
                                return load(cql, persistenceId, criteria, Optional.of(id));
                            });
                });
    }

    private static JournalDamaged damaged(String persistenceId, Row row) {
        return new JournalDamaged(
                "the snapshot of " + persistenceId + " at event " + row.getLong("seq")
                + " is incomplete in Cassandra, table snapshot_chunks, id " + row.getUuid("id")
                + "; restore Cassandra's data from a copy");
    }

    private static CompletionStage<Optional<Row>> newest(Cql cql, AsyncResultSet page,
            SnapshotSelectionCriteria criteria) {
        for (Row row : page.currentPage())
            if (matches(criteria, row.getLong("written_at")))
                return CompletableFuture.completedFuture(Optional.of(row));
        if (!page.hasMorePages()) return CompletableFuture.completedFuture(Optional.empty());
        return cql.retries().call(page::fetchNextPage).thenCompose(next -> newest(cql, next, criteria));
    }

    private static boolean matches(SnapshotSelectionCriteria criteria, long writtenAt) {
        return writtenAt <= criteria.maxTimestamp() && writtenAt >= criteria.minTimestamp();
    }

    /// All bytes in order, or empty if some are missing.
    private CompletionStage<Optional<ByteBuffer>> collect(Cql cql, AsyncResultSet page, ByteBuffer into) {
        for (Row row : page.currentPage()) {
            ByteBuffer data = row.getByteBuffer("data");
            if (into.position() != row.getInt("chunk") * CHUNK_BYTES || data.remaining() > into.remaining())
                return CompletableFuture.completedFuture(Optional.empty());
            into.put(data);
        }
        if (page.hasMorePages()) return cql.retries().call(page::fetchNextPage)
                .thenComposeAsync(next -> collect(cql, next, into), executor);
        return CompletableFuture.completedFuture(into.hasRemaining() ? Optional.empty()
                : Optional.of(into.flip()));
    }

    private SelectedSnapshot selected(String persistenceId, Row row, ByteBuffer bytes) {
        byte version = bytes.get(0);
        if (version != VERSION) throw new IllegalStateException("the snapshot of " + persistenceId
                + " at event " + row.getLong("seq") + " is written in version " + version
                + " of the format, this program knows " + VERSION + "; run a newer Bios");
        ByteBuffer from = bytes.duplicate().position(1);
        StoredPayload payload;
        Optional<StoredPayload> more;
        try {
            payload = StoredPayload.read(from);
            more = StoredPayload.readOptional(from);
        } catch (BufferUnderflowException cut) {
            throw changed(persistenceId, row, cut);
        }
        int end = from.position();
        // Snapshots of earlier builds have no checksum.
        if (from.hasRemaining() && from.getInt()
                != Checksum.of(persistenceId, row.getLong("seq"), "", bytes.slice(0, end)))
            throw changed(persistenceId, row, null);
        var metadata = new SnapshotMetadata(persistenceId, row.getLong("seq"), row.getLong("written_at"));
        return SelectedSnapshot.create(more.map(value -> metadata.withMetadata(value.value(serialization)))
                .orElse(metadata), payload.value(serialization));
    }

    private static JournalDamaged changed(String persistenceId, Row row, Throwable cause) {
        return new JournalDamaged("the snapshot of " + persistenceId + " at event " + row.getLong("seq")
                + " is damaged in Cassandra; restore Cassandra's data from a copy", cause);
    }

    @Override public Future<Void> doDeleteAsync(SnapshotMetadata metadata) {
        return delete(metadata.persistenceId(), metadata.sequenceNr(), metadata.sequenceNr(), writtenAt ->
                metadata.timestamp() == 0 || metadata.timestamp() == writtenAt);
    }

    @Override public Future<Void> doDeleteAsync(String persistenceId, SnapshotSelectionCriteria criteria) {
        return delete(persistenceId, criteria.minSequenceNr(), criteria.maxSequenceNr(),
                writtenAt -> matches(criteria, writtenAt));
    }

    private Future<Void> delete(String persistenceId, long from, long to, LongPredicate writtenAt) {
        return ScalaFutures.of(connection.ready().thenCompose(cql ->
                cql.execute(FIND, persistenceId, to, from).thenCompose(cql::allRows).thenCompose(rows -> {
                    CompletionStage<Void> done = CompletableFuture.completedFuture(null);
                    for (Row row : rows)
                        if (writtenAt.test(row.getLong("written_at")))
                            done = done.thenCompose(_ -> delete(cql, persistenceId, row));
                    return done;
                })));
    }

    private static CompletionStage<Void> delete(Cql cql, String persistenceId, Row row) {
        return cql.execute(DELETE, persistenceId, row.getLong("seq"), row.getLong("written_at"))
                .thenCompose(_ -> cql.execute(DELETE_CHUNKS, row.getUuid("id"))).thenAccept(_ -> {});
    }
}
