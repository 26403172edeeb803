package bios.persistence.journal;

import bios.persistence.embedded.AcknowledgedLog;
import bios.persistence.embedded.DatabaseUnusable;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.embedded.StoredColumns;
import bios.persistence.journal.JournalLoss.Loss;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Stream;

/// The embedded journal of a data folder while no process serves it: read for a check, or changed for a
/// repair. [bios.persistence.embedded.DatabaseInUse] if a process has it open.
public final class OfflineJournal implements AutoCloseable {
    private static final String WRITER = "offline";
    private static final String HEADS = """
            SELECT "persistence_id", MAX("sequence_number") FROM "event_journal"
            GROUP BY "persistence_id\"""";
    private static final String EVENTS = """
            SELECT "sequence_number", "writer", "write_timestamp", "adapter_manifest", "event_payload",
            "event_ser_id", "event_ser_manifest", "meta_payload", "meta_ser_id", "meta_ser_manifest"%s
            FROM "event_journal" WHERE "persistence_id" = ? AND NOT "deleted" ORDER BY "sequence_number\"""";
    private static final String SNAPSHOTS = """
            SELECT "sequence_number", "created", "snapshot_payload", "snapshot_ser_id",
            "snapshot_ser_manifest", "meta_payload", "meta_ser_id", "meta_ser_manifest"%s
            FROM "snapshot" WHERE "persistence_id" = ? ORDER BY "sequence_number" DESC""";
    private static final String DELETED =
            "SELECT \"up_to\", \"replaced\" FROM \"deleted_events\" WHERE \"persistence_id\" = ?";

    /// The same in a database of an earlier build, which has no such table.
    private static final String DELETED_EARLIER = """
            SELECT COALESCE(MAX(CASE WHEN "deleted" THEN "sequence_number" END), MIN("sequence_number") - 1),
            FALSE FROM "event_journal" WHERE "persistence_id" = ?""";

    /// Most states of a file that [#reopen] tries: the database keeps those of the last seconds.
    private static final int MAX_STATES = 256;

    private final Path data;
    private final Path folder;
    private final Connection connection;
    private final boolean current;

    private OfflineJournal(Path data, Connection connection, boolean current) {
        this.data = data;
        this.folder = folder(data);
        this.connection = connection;
        this.current = current;
    }

    /// The folder of the journal in a data folder.
    public static Path folder(Path data) {
        return data.resolve("journal");
    }

    /// Opens the journal for reading; nothing is written. [JournalLoss] if it cannot be opened.
    public static OfflineJournal read(Path data) {
        return open(data, EmbeddedDatabase.readOnlyUrl(folder(data)));
    }

    /// Opens the journal for changes; makes its tables if there are none.
    public static OfflineJournal change(Path data) {
        try {
            EmbeddedDatabase.createSchema(folder(data));
        } catch (DatabaseUnusable failed) {
            throw unchangeable(data, failed);
        }
        return open(data, EmbeddedDatabase.url(folder(data)));
    }

    private static OfflineJournal open(Path data, String url) {
        Path folder = folder(data);
        Connection connection = null;
        try {
            connection = EmbeddedDatabase.connect(url);
            return new OfflineJournal(data, connection, hasTable(connection, "deleted_events"));
        } catch (SQLException failed) {
            close(connection);
            throw EmbeddedDatabase.inUse(folder, failed).<RuntimeException>map(used -> used).orElseGet(() ->
                    unreadable(data, failed));
        }
    }

    private static void close(Connection connection) {
        try {
            if (connection != null) connection.close();
        } catch (SQLException _) {
            // Nothing was written.
        }
    }

    /// The refusal of a journal that cannot be read.
    static JournalLoss unreadable(Path data, SQLException failed) {
        return new JournalLoss(data, "the journal in " + folder(data) + " cannot be read, the file is damaged"
                + " (" + failed.getMessage().lines().findFirst().orElse("") + ")", List.of());
    }

    /// The refusal of a journal that can be read and not be changed.
    static JournalLoss unchangeable(Path data, DatabaseUnusable failed) {
        return new JournalLoss(data, failed.getMessage().lines().findFirst().orElse(""), List.of());
    }

    /// Tries whether the database can be opened for changes, with a copy of its file: some parts of a file
    /// are read only then.
    ///
    /// @return why not; empty: it can be changed, or there is none
    public static Optional<String> tryChange(Path data) throws IOException {
        if (!EmbeddedDatabase.exists(folder(data))) return Optional.empty();
        Path trial = Files.createTempDirectory("bios-journal");
        try {
            Path copy = Files.createDirectories(folder(trial));
            Files.copy(EmbeddedDatabase.file(folder(data)), EmbeddedDatabase.file(copy));
            try (OfflineJournal changed = change(trial)) {
                return changed.readable() ? Optional.empty() : Optional.of("its rows cannot be read");
            }
        } catch (JournalLoss failed) {
            return Optional.of(failed.getMessage().lines().findFirst().orElse(""));
        } finally {
            try (Stream<Path> files = Files.walk(trial)) {
                for (Path file : files.sorted(Comparator.reverseOrder()).toList()) Files.deleteIfExists(file);
            }
        }
    }

    private static boolean hasTable(Connection connection, String name) throws SQLException {
        try (ResultSet found = connection.getMetaData().getTables(null, null, name, null)) {
            return found.next();
        }
    }

    /// The data folder.
    public Path data() {
        return data;
    }

    /// Whether a build wrote it that knows of deleted events, checksums and the [AcknowledgedLog].
    boolean current() {
        return current;
    }

    /// The newest event of each entity.
    public Map<String, Long> heads() throws SQLException {
        var heads = new TreeMap<String, Long>();
        if (!hasTable(connection, "event_journal")) return heads;
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery(HEADS)) {
            while (rows.next()) heads.put(StoredColumns.text(rows, 1), rows.getLong(2));
        }
        return heads;
    }

    /// What each entity has lost, compared with the [AcknowledgedLog].
    public List<Loss> losses(Map<String, Long> heads) {
        return acknowledged().map(file -> losses(file.newest(), heads)).orElse(List.of());
    }

    static List<Loss> losses(Map<String, Long> acknowledged, Map<String, Long> heads) {
        return acknowledged.entrySet().stream()
                .filter(entry -> heads.getOrDefault(entry.getKey(), 0L) < entry.getValue())
                .map(entry -> new Loss(entry.getKey(), heads.getOrDefault(entry.getKey(), 0L),
                        entry.getValue())).toList();
    }

    /// The [AcknowledgedLog]; empty if there is none.
    public Optional<AcknowledgedLog.Contents> acknowledged() {
        return acknowledged(folder);
    }

    static Optional<AcknowledgedLog.Contents> acknowledged(Path folder) {
        try {
            return AcknowledgedLog.read(folder);
        } catch (IOException failed) {
            throw new UncheckedIOException(AcknowledgedLog.file(folder) + " cannot be read: "
                    + failed.getMessage(), failed);
        }
    }

    /// Replaces the [AcknowledgedLog].
    public void acknowledge(Map<String, Long> newest) {
        try {
            AcknowledgedLog.replace(folder, newest);
        } catch (IOException failed) {
            throw new UncheckedIOException(AcknowledgedLog.file(folder) + " cannot be written: "
                    + failed.getMessage(), failed);
        }
    }

    /// The rows of an entity, as far as they can be read.
    public StoredRows rows(String persistenceId) {
        var events = new ArrayList<StoredRows.Row>();
        var snapshots = new ArrayList<StoredRows.Row>();
        long deletedTo = 0;
        boolean replaced = false;
        Optional<String> failure = Optional.empty();
        try {
            try (PreparedStatement statement = select(current ? DELETED : DELETED_EARLIER,
                    persistenceId);
                    ResultSet row = statement.executeQuery()) {
                if (row.next()) {
                    deletedTo = row.getLong(1);
                    replaced = row.getBoolean(2);
                }
            }
            read(SNAPSHOTS, persistenceId, OfflineJournal::snapshot, snapshots);
            read(EVENTS, persistenceId, OfflineJournal::event, events);
        } catch (SQLException failed) {
            failure = Optional.of("its rows cannot be read: "
                    + failed.getMessage().lines().findFirst().orElse(""));
        }
        return new StoredRows(persistenceId, deletedTo, replaced, events, snapshots, failure);
    }

    private PreparedStatement select(String sql, String persistenceId) throws SQLException {
        PreparedStatement statement = connection.prepareStatement(
                sql.formatted(current ? ", \"checksum\"" : ", CAST(NULL AS BIGINT)"));
        statement.setString(1, persistenceId);
        return statement;
    }

    private interface RowReader {
        StoredRows.Row read(String persistenceId, ResultSet row) throws SQLException;
    }

    private void read(String sql, String persistenceId, RowReader reader, List<StoredRows.Row> into)
            throws SQLException {
        try (PreparedStatement statement = select(sql, persistenceId);
                ResultSet row = statement.executeQuery()) {
            while (row.next()) into.add(reader.read(persistenceId, row));
        }
    }

    private static StoredRows.Row event(String persistenceId, ResultSet row) throws SQLException {
        long number = row.getLong(1);
        var payload = new StoredPayload(row.getInt(6), StoredColumns.text(row, 7),
                StoredColumns.bytes(row, 5));
        var event = new EventRow.Event(row.getLong(3), StoredColumns.text(row, 4), payload,
                metadata(row, 8));
        return row(row, 11, number, payload, Checksum.of(persistenceId, number,
                StoredColumns.text(row, 2), event));
    }

    private static StoredRows.Row snapshot(String persistenceId, ResultSet row) throws SQLException {
        long number = row.getLong(1);
        var payload = new StoredPayload(row.getInt(4), StoredColumns.text(row, 5),
                StoredColumns.bytes(row, 3));
        return row(row, 9, number, payload,
                Checksum.of(persistenceId, number, row.getLong(2), payload, metadata(row, 6)));
    }

    private static StoredRows.Row row(ResultSet row, int checksumColumn, long number, StoredPayload payload,
            long right) throws SQLException {
        long checksum = row.getLong(checksumColumn);
        boolean intact = row.wasNull() || checksum == right;
        return new StoredRows.Row(number, payload.serializer(), payload.manifest(), payload.bytes(), intact);
    }

    private static Optional<StoredPayload> metadata(ResultSet row, int column) throws SQLException {
        byte[] bytes = row.getBytes(column);
        return bytes == null ? Optional.empty()
                : Optional.of(new StoredPayload(row.getInt(column + 1),
                        StoredColumns.text(row, column + 2), bytes));
    }

    /// Appends an event of an entity.
    ///
    /// @param after the entity's newest event
    /// @param timeMillis epoch milliseconds
    public void append(String persistenceId, long after, int serializer, String manifest, byte[] bytes,
            long timeMillis) throws SQLException {
        var event = new EventRow.Event(timeMillis, "", new StoredPayload(serializer, manifest, bytes),
                Optional.empty());
        try (PreparedStatement statement = connection.prepareStatement(JdbcJournal.INSERT)) {
            JdbcJournal.add(statement, new EventRow(persistenceId, after + 1, WRITER, List.of(event)));
            statement.executeBatch();
        }
    }

    /// Removes the events after `last`, the snapshots that are not in `kept`, and what the newest snapshot in
    /// it replaces. With 0 as `last` nothing of the entity stays.
    public void cut(String persistenceId, long last, List<Long> kept) throws SQLException {
        long base = kept.stream().mapToLong(Long::longValue).max().orElse(0);
        for (StoredRows.Row row : rows(persistenceId).snapshots())
            if (row.number() != base) execute(
                    "DELETE FROM \"snapshot\" WHERE \"persistence_id\" = ? AND \"sequence_number\" = ?",
                    persistenceId, row.number());
        execute("DELETE FROM \"event_journal\" WHERE \"persistence_id\" = ? AND \"sequence_number\" > ?",
                persistenceId, last);
        // The row of the last event stays, so that its number is not used again.
        execute("DELETE FROM \"event_journal\" WHERE \"persistence_id\" = ? AND \"sequence_number\" <= ?",
                persistenceId, Math.min(base, last - 1));
        if (last == 0) execute(
                "DELETE FROM \"deleted_events\" WHERE \"persistence_id\" = ? AND \"up_to\" >= ?",
                persistenceId, 0);
        if (base > 0) try (PreparedStatement statement = connection.prepareStatement(
                JdbcJournal.NOTE_DELETED)) {
            statement.setString(1, persistenceId);
            statement.setLong(2, base);
            statement.setBoolean(3, true);
            statement.executeUpdate();
        }
        if (last > 0 && JdbcJournal.number(connection, JdbcJournal.HIGHEST, persistenceId) < last) {
            // The snapshot has it, and its own row is lost.
            append(persistenceId, last - 1, 0, "", new byte[0], 0);
            execute(JdbcJournal.MARK_DELETED, persistenceId, last);
        }
        // The entity writes its entry of the run index again.
        String run = persistenceId.substring(persistenceId.indexOf('|') + 1);
        for (String table : List.of("bios_run", "bios_checkpoint")) if (hasTable(connection, table))
            execute("DELETE FROM \"" + table + "\" WHERE \"run\" = ? AND ? = 0", run, 0);
    }

    private void execute(String sql, String persistenceId, long number) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, persistenceId);
            statement.setLong(2, number);
            statement.executeUpdate();
        }
    }

    /// Starts a transaction; changes are kept by [#commit] and dropped by [#close].
    public void begin() throws SQLException {
        connection.setAutoCommit(false);
    }

    /// Keeps the changes.
    public void commit() throws SQLException {
        connection.commit();
        connection.setAutoCommit(true);
    }

    /// Makes a file readable that the database cannot open. With a new header the database finds the newest
    /// state in the file; while that cannot be opened, it is taken for unfinished, so that the one before is
    /// found. The caller has a copy of the file.
    ///
    /// @return whether it can be opened now
    public static boolean reopen(Path data) throws IOException {
        EmbeddedDatabase.replaceHeader(folder(data));
        for (int states = 0; states < MAX_STATES; states++) {
            try {
                read(data).close();
                return true;
            } catch (JournalLoss _) {
                if (!EmbeddedDatabase.removeNewestState(folder(data))) return false;
            }
        }
        return false;
    }

    /// Whether the rows of all entities can be read, whatever they hold.
    public boolean readable() {
        try {
            return heads().keySet().stream().allMatch(id -> rows(id).failure().isEmpty());
        } catch (SQLException _) {
            return false;
        }
    }

    /// Replaces the database by one with the rows that can be read. The caller has a copy of the file.
    ///
    /// @return how many rows
    public static long salvage(Path data, InstantSource clock) throws SQLException, IOException {
        return JournalSalvage.replace(folder(data), clock);
    }

    /// Removes the database's file and the [AcknowledgedLog]. The caller has a copy of both.
    public static void clear(Path data) throws IOException {
        Files.deleteIfExists(EmbeddedDatabase.file(folder(data)));
        AcknowledgedLog.delete(folder(data));
    }

    /// The runs that have blobs in the data folder.
    public static List<String> runsWithBlobs(Path data) {
        Path runs = data.resolve("blobs").resolve("blobs").resolve("runs");
        if (!Files.isDirectory(runs)) return List.of();
        try (Stream<Path> folders = Files.list(runs)) {
            return folders.filter(OfflineJournal::hasFile).map(folder -> folder.getFileName().toString())
                    .sorted().toList();
        } catch (IOException failed) {
            throw new UncheckedIOException("the blobs in " + runs + " cannot be listed: "
                    + failed.getMessage(), failed);
        }
    }

    private static boolean hasFile(Path folder) {
        try (Stream<Path> files = Files.walk(folder)) {
            return files.anyMatch(Files::isRegularFile);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    @Override public void close() {
        close(connection);
    }
}
