package bios.persistence.journal;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Types;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;
import org.apache.pekko.persistence.jdbc.config.JournalConfig;
import org.apache.pekko.persistence.jdbc.journal.dao.DefaultJournalDao;
import org.apache.pekko.persistence.jdbc.journal.dao.JournalTables.JournalPekkoSerializationRow;
import org.apache.pekko.serialization.Serialization;
import org.apache.pekko.stream.Materializer;
import scala.Option;
import scala.Tuple2;
import scala.collection.immutable.Seq;
import scala.collection.immutable.Set;
import scala.concurrent.ExecutionContext;
import scala.concurrent.Future;
import scala.concurrent.Promise;
import scala.jdk.javaapi.CollectionConverters;
import scala.jdk.javaapi.OptionConverters;
import scala.runtime.BoxedUnit;
import slick.jdbc.JdbcBackend;
import slick.jdbc.JdbcProfile;
import slick.jdbc.hikaricp.HikariCPJdbcDataSource;

/// Writes events where the journal's own thread stands, one transaction for each request: a commit to the H2
/// file takes a tenth of a millisecond, the plugin's way to it (a stream, a pool of threads and back) several
/// times that. Everything else is the plugin's.
/// It has a connection of its own: one borrowed from the plugin's pool behind its back would be missing
/// there, and a pool that finds fewer connections than it counts stands still for good.
public final class EmbeddedJournalDao extends DefaultJournalDao {
    private static final List<String> COLUMNS = List.of("deleted", "persistence_id", "sequence_number",
            "writer", "write_timestamp", "adapter_manifest", "event_payload", "event_ser_id",
            "event_ser_manifest", "meta_payload", "meta_ser_id", "meta_ser_manifest");
    private static final String INSERT = "INSERT INTO \"event_journal\" (" + COLUMNS.stream()
            .map(column -> '"' + column + '"').collect(Collectors.joining(", "))
            + ") VALUES (" + "?, ".repeat(COLUMNS.size() - 1) + "?)";

    private Optional<Connection> own = Optional.empty();

    /// For the plugin, which finds it by these types.
    public EmbeddedJournalDao(JdbcBackend.JdbcDatabaseDef database, JdbcProfile profile, JournalConfig config,
            Serialization serialization, ExecutionContext executor, Materializer materializer) {
        super(database, profile, config, serialization, executor, materializer);
        materializer.system().registerOnTermination(this::close);
    }

    private synchronized void close() {
        try {
            if (own.isPresent()) own.get().close();
        } catch (SQLException _) {
            // the process ends, and what was acknowledged is on the disk
        }
        own = Optional.empty();
    }

    /// Open until the system ends, or a write fails.
    private Connection connection() throws SQLException {
        if (own.isEmpty()) {
            var pool = ((HikariCPJdbcDataSource) db().source()).ds();
            own = Optional.of(DriverManager.getConnection(pool.getJdbcUrl(), pool.getUsername(),
                    pool.getPassword()));
            own.get().setAutoCommit(false);
        }
        return own.get();
    }

    /// Completed when it returns; failed if nothing was written.
    @Override public synchronized Future<BoxedUnit> queueWriteJournalRows(
            Seq<Tuple2<JournalPekkoSerializationRow, Set<String>>> rows) {
        var all = CollectionConverters.asJava(rows);
        // Tags have a table of their own, and nothing here has tags.
        if (all.stream().anyMatch(row -> row._2().nonEmpty())) return super.queueWriteJournalRows(rows);
        try {
            Connection connection = connection();
            write(connection, all.stream().map(Tuple2::_1).toList());
            connection.commit();
            return Future.successful(BoxedUnit.UNIT);
        } catch (SQLException | RuntimeException failed) {
            close();    // which rolls back
            return Promise.<BoxedUnit>failed(failed).future();
        }
    }

    private static void write(Connection connection, List<JournalPekkoSerializationRow> rows)
            throws SQLException {
        try (PreparedStatement insert = connection.prepareStatement(INSERT)) {
            for (JournalPekkoSerializationRow row : rows) {
                insert.setBoolean(1, row.deleted());
                insert.setString(2, row.persistenceId());
                insert.setLong(3, row.sequenceNumber());
                insert.setString(4, row.writer());
                insert.setLong(5, row.writeTimestamp());
                insert.setString(6, row.adapterManifest());
                insert.setBytes(7, row.eventPayload());
                insert.setInt(8, row.eventSerId());
                insert.setString(9, row.eventSerManifest());
                insert.setBytes(10, orNull(row.metaPayload()));
                insert.setObject(11, orNull(row.metaSerId()), Types.INTEGER);
                insert.setString(12, orNull(row.metaSerManifest()));
                insert.addBatch();
            }
            insert.executeBatch();
        }
    }

    private static <T> T orNull(Option<T> value) {
        return OptionConverters.toJava(value).orElse(null);
    }
}
