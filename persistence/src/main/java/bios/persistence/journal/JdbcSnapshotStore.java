package bios.persistence.journal;

import bios.persistence.embedded.ConnectionPool;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.embedded.StoredColumns;
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
            "snapshot_ser_id", "snapshot_ser_manifest", "meta_payload", "meta_ser_id", "meta_ser_manifest",
            "checksum") KEY ("persistence_id", "sequence_number") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""";
    private static final String SELECTED = """
            FROM "snapshot" WHERE "persistence_id" = ? AND "sequence_number" BETWEEN ? AND ?
            AND "created" BETWEEN ? AND ?""";
    private static final String LOAD = """
            SELECT "sequence_number", "created", "snapshot_payload", "snapshot_ser_id",
            "snapshot_ser_manifest", "meta_payload", "meta_ser_id", "meta_ser_manifest", "checksum"
            """ + SELECTED + " ORDER BY \"sequence_number\" DESC LIMIT 1";
    private static final String DELETE = "DELETE " + SELECTED;
    /// The events up to this number were deleted because of a snapshot.
    private static final String REPLACED_EVENTS =
            "SELECT \"up_to\" FROM \"deleted_events\" WHERE \"persistence_id\" = ? AND \"replaced\"";

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
                    statement.setLong(10, Checksum.of(metadata.persistenceId(), metadata.sequenceNr(),
                            metadata.timestamp(), payload, Optional.ofNullable(more)));
                    statement.executeUpdate();
                }
                return null;
            });
        });
    }

    @Override public Future<Optional<SelectedSnapshot>> doLoadAsync(String persistenceId,
            SnapshotSelectionCriteria criteria) {
        return ScalaFutures.onVirtualThread(() -> {
            try {
                return pool.transact(connection -> load(connection, persistenceId, criteria));
            } catch (SQLException failed) {
                throw EmbeddedDatabase.isDamage(failed)
                        ? new JournalDamaged("the snapshot of " + persistenceId + " cannot be read: "
                                + failed, failed)
                        : failed;
            }
        });
    }

    private Optional<SelectedSnapshot> load(Connection connection, String persistenceId,
            SnapshotSelectionCriteria criteria) throws SQLException {
        Optional<SelectedSnapshot> found;
        try (PreparedStatement statement = select(connection, LOAD, persistenceId, criteria);
                ResultSet rows = statement.executeQuery()) {
            found = rows.next() ? Optional.of(snapshot(persistenceId, rows)) : Optional.empty();
        }
        long replaced = criteria.maxSequenceNr() == Long.MAX_VALUE
                ? JdbcJournal.number(connection, REPLACED_EVENTS, persistenceId) : 0;
        if (found.map(one -> one.metadata().sequenceNr()).orElse(0L) < replaced)
            throw new JournalDamaged("the snapshot of " + persistenceId + " that replaces its events up to "
                    + replaced + " is missing");
        return found;
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
        var payload = new StoredPayload(row.getInt(4), StoredColumns.text(row, 5),
                StoredColumns.bytes(row, 3));
        byte[] bytes = row.getBytes(6);
        Optional<StoredPayload> more = bytes == null ? Optional.empty()
                : Optional.of(new StoredPayload(row.getInt(7), StoredColumns.text(row, 8), bytes));
        long checksum = row.getLong(9);
        // Snapshots of earlier builds have none.
        if (!row.wasNull() && checksum != Checksum.of(persistenceId, metadata.sequenceNr(),
                metadata.timestamp(), payload, more))
            throw new JournalDamaged("the snapshot of " + persistenceId + " at event "
                    + metadata.sequenceNr() + " is damaged");
        return SelectedSnapshot.create(more.map(value -> metadata.withMetadata(value.value(serialization)))
                .orElse(metadata), payload.value(serialization));
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
