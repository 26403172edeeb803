package bios.persistence.journal;

import bios.persistence.embedded.ConnectionPool;
import com.typesafe.config.Config;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.Optional;
import org.apache.pekko.persistence.SelectedSnapshot;
import org.apache.pekko.persistence.SnapshotMetadata;
import org.apache.pekko.persistence.SnapshotSelectionCriteria;
import org.apache.pekko.persistence.snapshot.japi.SnapshotStore;
import org.apache.pekko.serialization.Serialization;
import org.apache.pekko.serialization.SerializationExtension;
import scala.concurrent.Future;
import scala.jdk.javaapi.OptionConverters;

/// Pekko's snapshots in the embedded database. All work runs on virtual threads.
public final class JdbcSnapshotStore extends SnapshotStore {
    private static final String SAVE = """
            MERGE INTO "snapshot" ("persistence_id", "sequence_number", "created", "snapshot_payload",
            "snapshot_ser_id", "snapshot_ser_manifest", "meta_payload", "meta_ser_id", "meta_ser_manifest")
            KEY ("persistence_id", "sequence_number") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""";
    private static final String SELECTED = """
            FROM "snapshot" WHERE "persistence_id" = ? AND "sequence_number" BETWEEN ? AND ?
            AND "created" BETWEEN ? AND ?""";
    private static final String LOAD = """
            SELECT "sequence_number", "created", "snapshot_payload", "snapshot_ser_id",
            "snapshot_ser_manifest", "meta_payload", "meta_ser_id", "meta_ser_manifest"
            """ + SELECTED + " ORDER BY \"sequence_number\" DESC LIMIT 1";
    private static final String DELETE = "DELETE " + SELECTED;

    private final ConnectionPool pool;
    private final Serialization serialization;

    /// Called by Pekko, which finds the class by its name.
    public JdbcSnapshotStore(Config plugin) {
        pool = ConnectionPool.to(plugin.getString("url"));
        serialization = SerializationExtension.get(context().system());
    }

    @Override public void postStop() {
        pool.close();
    }

    @Override public Future<Void> doSaveAsync(SnapshotMetadata metadata, Object snapshot) {
        return ScalaFutures.onVirtualThread(() -> {
            StoredPayload payload = StoredPayload.of(serialization, snapshot);
            StoredPayload more = OptionConverters.toJava(metadata.metadata())
                    .map(value -> StoredPayload.of(serialization, value)).orElse(null);
            return pool.transact(connection -> {
                try (PreparedStatement statement = connection.prepareStatement(SAVE)) {
                    statement.setString(1, metadata.persistenceId());
                    statement.setLong(2, metadata.sequenceNr());
                    statement.setLong(3, metadata.timestamp());
                    statement.setBytes(4, payload.bytes());
                    statement.setInt(5, payload.serializer());
                    statement.setString(6, payload.manifest());
                    statement.setBytes(7, more == null ? null : more.bytes());
                    statement.setObject(8, more == null ? null : more.serializer());
                    statement.setString(9, more == null ? null : more.manifest());
                    statement.executeUpdate();
                }
                return null;
            });
        });
    }

    @Override public Future<Optional<SelectedSnapshot>> doLoadAsync(String persistenceId,
            SnapshotSelectionCriteria criteria) {
        return ScalaFutures.onVirtualThread(() -> pool.transact(connection -> {
            try (PreparedStatement statement = select(connection, LOAD, persistenceId, criteria);
                    ResultSet rows = statement.executeQuery()) {
                return rows.next() ? Optional.of(snapshot(persistenceId, rows)) : Optional.empty();
            }
        }));
    }

    private static PreparedStatement select(Connection connection, String sql, String persistenceId,
            SnapshotSelectionCriteria criteria) throws SQLException {
        PreparedStatement statement = connection.prepareStatement(sql);
        statement.setString(1, persistenceId);
        statement.setLong(2, criteria.minSequenceNr());
        statement.setLong(3, criteria.maxSequenceNr());
        statement.setLong(4, criteria.minTimestamp());
        statement.setLong(5, criteria.maxTimestamp());
        return statement;
    }

    private SelectedSnapshot snapshot(String persistenceId, ResultSet row) throws SQLException {
        var metadata = new SnapshotMetadata(persistenceId, row.getLong(1), row.getLong(2));
        Object value = new StoredPayload(row.getInt(4), row.getString(5), row.getBytes(3))
                .value(serialization);
        byte[] more = row.getBytes(6);
        return SelectedSnapshot.create(more == null ? metadata : metadata.withMetadata(
                new StoredPayload(row.getInt(7), row.getString(8), more).value(serialization)), value);
    }

    /// A timestamp of 0 stands for any.
    @Override public Future<Void> doDeleteAsync(SnapshotMetadata metadata) {
        long from = metadata.timestamp();
        long to = from == 0 ? Long.MAX_VALUE : from;
        return doDeleteAsync(metadata.persistenceId(), new SnapshotSelectionCriteria(metadata.sequenceNr(),
                to, metadata.sequenceNr(), from));
    }

    @Override public Future<Void> doDeleteAsync(String persistenceId, SnapshotSelectionCriteria criteria) {
        return ScalaFutures.onVirtualThread(() -> pool.transact(connection -> {
            try (PreparedStatement statement = select(connection, DELETE, persistenceId, criteria)) {
                statement.executeUpdate();
                return null;
            }
        }));
    }
}
