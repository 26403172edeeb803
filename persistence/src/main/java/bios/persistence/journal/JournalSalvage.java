package bios.persistence.journal;

import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.index.JdbcRunIndex;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Types;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// Copies the rows of a damaged database that can be read into a new one. Rows are read by their row number,
/// without any index; where a part of a table cannot be read, the copy goes on behind it.
final class JournalSalvage {
    private static final int PAGE = 64;
    /// The copy of a table ends after this many row numbers without a row that can be read.
    private static final long MAX_GAP = 1L << 20;
    private static final List<String> TABLES =
            List.of("event_journal", "snapshot", "deleted_events", "bios_run", "bios_checkpoint");

    private final Connection from;
    private final Connection to;
    private long copied;

    private JournalSalvage(Connection from, Connection to) {
        this.from = from;
        this.to = to;
    }

    /// Replaces the database in `folder`, of which the caller has a copy.
    ///
    /// @return how many rows were copied
    static long replace(Path folder, InstantSource clock) throws SQLException, IOException {
        Path fresh = folder.resolve("salvage");
        Files.createDirectories(fresh);
        Files.deleteIfExists(EmbeddedDatabase.file(fresh));
        EmbeddedDatabase.createSchema(fresh);
        JdbcRunIndex.open(fresh, clock).close();
        long copied;
        try (Connection from = EmbeddedDatabase.connect(EmbeddedDatabase.readOnlyUrl(folder));
                Connection to = EmbeddedDatabase.connect(EmbeddedDatabase.url(fresh))) {
            var salvage = new JournalSalvage(from, to);
            for (String table : TABLES) salvage.copy(table);
            copied = salvage.copied;
        }
        Files.move(EmbeddedDatabase.file(fresh), EmbeddedDatabase.file(folder),
                StandardCopyOption.REPLACE_EXISTING);
        // H2 may leave files of its own beside the database.
        try (Stream<Path> left = Files.list(fresh)) {
            for (Path file : left.toList()) Files.deleteIfExists(file);
        }
        Files.deleteIfExists(fresh);
        return copied;
    }

    private void copy(String table) throws SQLException {
        List<String> columns;
        try {
            columns = columns(table);
        } catch (SQLException _) {
            return; // no such table
        }
        long next = 0;
        int rows = PAGE;
        while (next >= 0) {
            try {
                long last = copyPage(table, columns, next, rows);
                if (last < next) return;
                next = last + 1;
                rows = PAGE;
            } catch (SQLException unreadable) {
                if (rows > 1) rows = 1;
                else next = behind(table, columns, next);
            }
        }
    }

    /// The first row number behind `unreadable` from which rows can be read; -1: there is none.
    private long behind(String table, List<String> columns, long unreadable) {
        long step = 1;
        while (!readable(table, columns, unreadable + step)) {
            step *= 2;
            if (step > MAX_GAP) return -1;
        }
        long bad = unreadable + step / 2;
        long good = unreadable + step;
        while (good - bad > 1) {
            long middle = (good + bad) / 2;
            if (readable(table, columns, middle)) good = middle;
            else bad = middle;
        }
        return good;
    }

    private boolean readable(String table, List<String> columns, long from) {
        try {
            read(table, columns, from, 1, new ArrayList<>());
            return true;
        } catch (SQLException _) {
            return false;
        }
    }

    /// Without the number that the database gives to each event.
    private List<String> columns(String table) throws SQLException {
        try (PreparedStatement statement = from.prepareStatement(
                "SELECT * FROM \"" + table + "\" WHERE 1 = 0");
                ResultSet none = statement.executeQuery()) {
            ResultSetMetaData described = none.getMetaData();
            var names = new ArrayList<String>();
            for (int i = 1; i <= described.getColumnCount(); i++)
                if (!described.getColumnName(i).equals("ordering"))
                    names.add('"' + described.getColumnName(i) + '"');
            return names;
        }
    }

    /// @return the last row number that was copied; less than `next`: there is no row from there on
    private long copyPage(String table, List<String> columns, long next, int rows) throws SQLException {
        var batch = new ArrayList<Object[]>();
        long last = read(table, columns, next, rows, batch);
        String places = columns.stream().map(_ -> "?").collect(Collectors.joining(", "));
        for (Object[] values : batch) insert("INSERT INTO \"" + table + "\" (" + String.join(", ", columns)
                + ") VALUES (" + places + ")", values);
        return last;
    }

    private long read(String table, List<String> columns, long next, int rows, List<Object[]> into)
            throws SQLException {
        long last = next - 1;
        try (PreparedStatement read = from.prepareStatement("SELECT _ROWID_, " + String.join(", ", columns)
                + " FROM \"" + table + "\" WHERE _ROWID_ >= ? ORDER BY _ROWID_ LIMIT " + rows)) {
            read.setLong(1, next);
            try (ResultSet row = read.executeQuery()) {
                while (row.next()) {
                    last = row.getLong(1);
                    into.add(values(row, columns.size()));
                }
            }
        }
        return last;
    }

    private static Object[] values(ResultSet row, int count) throws SQLException {
        var values = new Object[count];
        for (int i = 0; i < count; i++) values[i] = row.getMetaData().getColumnType(i + 2) == Types.BLOB
                ? row.getBytes(i + 2) : row.getObject(i + 2);
        return values;
    }

    private void insert(String sql, Object[] values) throws SQLException {
        try (PreparedStatement write = to.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) write.setObject(i + 1, values[i]);
            write.executeUpdate();
            copied++;
        } catch (SQLException refused) {
            if (refused.getSQLState() == null || !refused.getSQLState().startsWith("23")) throw refused;
            // Not a row as it was written: its key is there already, or a value is missing.
        }
    }
}
