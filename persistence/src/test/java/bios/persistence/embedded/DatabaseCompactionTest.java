package bios.persistence.embedded;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.h2.store.fs.FileBase;
import org.h2.store.fs.FilePath;
import org.h2.store.fs.FilePathWrapper;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The file of the embedded database is given back, and a kill at any moment of that loses nothing.
final class DatabaseCompactionTest {
    private static final int TICKS = 40;
    private static final int MARKS = 12;
    private static final int RETENTION_MILLIS = 100;
    /// More than a database to which little is written has between two ticks.
    private static final int BUSY_COMMITS = 40;
    private static final String SCHEME = "recorded";
    @TempDir Path folder;

    /// A change of the file: bytes at a place, or a new length where there are none.
    private record Change(long at, byte[] bytes) {}

    /// Notes all changes of files while `on`.
    public static final class RecordingFileSystem extends FilePathWrapper {
        private static final List<Change> CHANGES = new ArrayList<>();
        private static boolean on;

        /// Called by H2.
        public RecordingFileSystem() {}

        @Override public String getScheme() {
            return SCHEME;
        }

        @Override public FileChannel open(String mode) throws IOException {
            FileChannel base = getBase().open(mode);
            return new FileBase() {
                @Override public int write(ByteBuffer from, long position) throws IOException {
                    byte[] bytes = new byte[from.remaining()];
                    from.duplicate().get(bytes);
                    note(new Change(position, bytes));
                    return base.write(from, position);
                }

                @Override public FileChannel truncate(long size) throws IOException {
                    note(new Change(size, new byte[0]));
                    base.truncate(size);
                    return this;
                }

                @Override public int read(ByteBuffer into, long position) throws IOException {
                    return base.read(into, position);
                }

                @Override public int write(ByteBuffer from) throws IOException {
                    return write(from, base.position());
                }

                @Override public int read(ByteBuffer into) throws IOException {
                    return base.read(into);
                }

                @Override public long position() throws IOException {
                    return base.position();
                }

                @Override public FileChannel position(long to) throws IOException {
                    base.position(to);
                    return this;
                }

                @Override public long size() throws IOException {
                    return base.size();
                }

                @Override public void force(boolean metadata) throws IOException {
                    base.force(metadata);
                }

                @Override public FileLock tryLock(long position, long size, boolean shared)
                        throws IOException {
                    return base.tryLock(position, size, shared);
                }

                @Override protected void implCloseChannel() throws IOException {
                    base.close();
                }
            };
        }

        private static synchronized void note(Change change) {
            if (on) CHANGES.add(change);
        }
    }

    private static String address(Path file, String scheme) {
        return address(file, scheme, 0);
    }

    private static String address(Path file, String scheme, int retentionMillis) {
        return "jdbc:h2:" + scheme + file + ";WRITE_DELAY=0;RETENTION_TIME=" + retentionMillis
                + ";FILE_LOCK=NO;MAX_COMPACT_TIME=0;DB_CLOSE_ON_EXIT=FALSE";
    }

    /// Many small commits of rows, of which most are deleted again.
    private static void write(Connection connection, int entities, int rounds) throws SQLException {
        Random random = new Random(7);
        try (var statement = connection.createStatement()) {
            statement.execute("CREATE TABLE event (id INT, number INT, payload VARBINARY,"
                    + " PRIMARY KEY (id, number))");
        }
        connection.setAutoCommit(false);
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO event VALUES (?, ?, ?)");
                PreparedStatement delete = connection.prepareStatement(
                        "DELETE FROM event WHERE id = ? AND number <= ?")) {
            for (int round = 0; round < rounds; round++)
                for (int id = 0; id < entities; id++) {
                    byte[] payload = new byte[200 + random.nextInt(400)];
                    random.nextBytes(payload);
                    insert.setInt(1, id);
                    insert.setInt(2, round);
                    insert.setBytes(3, payload);
                    insert.executeUpdate();
                    if (round % 5 == 4) {
                        delete.setInt(1, id);
                        delete.setInt(2, round - 2);
                        delete.executeUpdate();
                    }
                    connection.commit();
                }
        }
        connection.setAutoCommit(true);
    }

    private static String content(Connection connection) throws SQLException {
        try (var statement = connection.createStatement();
                var rows = statement.executeQuery("SELECT COUNT(*), SUM(id * 31 + number),"
                        + " SUM(CAST(LENGTH(payload) AS BIGINT)) FROM event")) {
            rows.next();
            return rows.getLong(1) + " rows, " + rows.getLong(2) + ", " + rows.getLong(3) + " bytes";
        }
    }

    @Test void theFileOfAQuietDatabaseShrinksToWhatItHolds() throws Exception {
        Path file = folder.resolve("journal.mv.db");
        try (Connection connection = EmbeddedDatabase.connect(address(folder.resolve("journal"), ""))) {
            write(connection, 100, 20);
            String before = content(connection);
            long used = Files.size(file);
            assertTrue(used > 1 << 20, "commits leave " + used + " bytes");
            try (var compaction = DatabaseCompaction.of(
                    EmbeddedDatabase.connect(address(folder.resolve("journal"), "")))) {
                for (int i = 0; i < TICKS; i++) compaction.tick();
                long left = Files.size(file);
                // 200 to 400 rows of 400 bytes, the tables of the schema, and what commits of the steps take.
                assertTrue(left < 700_000, used + " bytes became " + left);
            }
            assertEquals(before, content(connection));
        }
    }

    @Test void theFileOfABusyDatabaseShrinksToo() throws Exception {
        Path file = folder.resolve("journal.mv.db");
        String address = address(folder.resolve("journal"), "", RETENTION_MILLIS);
        try (Connection connection = EmbeddedDatabase.connect(address);
                var compaction = DatabaseCompaction.of(EmbeddedDatabase.connect(address));
                var statement = connection.createStatement()) {
            write(connection, 100, 20);
            long used = Files.size(file);
            // All pages at the end of the file are live, so they have to be moved.
            statement.execute("CREATE TABLE last AS SELECT X, SPACE(3000) FROM SYSTEM_RANGE(1, 100)");
            statement.execute("CREATE TABLE mark (number INT)");
            for (int i = 0; i < TICKS; i++) {
                for (int j = 0; j < BUSY_COMMITS; j++)
                    statement.execute("INSERT INTO mark VALUES (" + j + ")");
                compaction.tick();
                Thread.sleep(RETENTION_MILLIS / 2);
            }
            long left = Files.size(file);
            assertTrue(left < used / 3, used + " bytes became " + left);
        }
    }

    private static long newestMark(Connection connection) throws SQLException {
        try (var statement = connection.createStatement();
                var rows = statement.executeQuery("SELECT MAX(number) FROM mark")) {
            rows.next();
            return rows.getLong(1);
        }
    }

    @Test void aKillAtAnyWriteOfACompactionLosesNothing() throws Exception {
        FilePath.register(new RecordingFileSystem());
        Path file = folder.resolve("journal.mv.db");
        String address = address(folder.resolve("journal"), SCHEME + ":");
        // The number of changes of the file when a mark was committed.
        List<Integer> committed = new ArrayList<>();
        String content;
        byte[] start;
        try (Connection connection = EmbeddedDatabase.connect(address);
                var marking = connection.createStatement()) {
            write(connection, 30, 10);
            marking.execute("CREATE TABLE mark (number INT)");
            content = content(connection);
            start = Files.readAllBytes(file);
            RecordingFileSystem.CHANGES.clear();
            RecordingFileSystem.on = true;
            var compaction = DatabaseCompaction.of(EmbeddedDatabase.connect(address));
            for (int i = 0; i < MARKS; i++) {
                compaction.tick();
                marking.execute("INSERT INTO mark VALUES (" + (i + 1) + ")");
                committed.add(RecordingFileSystem.CHANGES.size());
            }
            RecordingFileSystem.on = false;
            compaction.close();
        }
        List<Change> changes = List.copyOf(RecordingFileSystem.CHANGES);
        assertTrue(changes.size() > 2 * MARKS, changes.size() + " writes");
        for (int i = 0; i <= changes.size(); i++) {
            int written = i;
            long marks = committed.stream().filter(at -> at <= written).count();
            kill(start, changes, i, false, content, marks);
            if (i < changes.size()) kill(start, changes, i, true, content, marks);
        }
    }

    /// Opens what a kill after a number of changes, or in the middle of the next one, leaves.
    private void kill(byte[] start, List<Change> changes, int after, boolean torn, String content, long marks)
            throws IOException, SQLException {
        Path left = folder.resolve("left.mv.db");
        Files.write(left, start);
        try (FileChannel channel = FileChannel.open(left, StandardOpenOption.WRITE)) {
            for (Change change : changes.subList(0, after)) apply(channel, change, false);
            if (torn) apply(channel, changes.get(after), true);
        }
        String when = "killed " + (torn ? "in" : "after") + " write " + after + " of " + changes.size();
        try (Connection connection = EmbeddedDatabase.connect(address(folder.resolve("left"), ""))) {
            assertEquals(content, content(connection), when);
            assertTrue(newestMark(connection) >= marks, when + ": of " + marks + " commits there are "
                    + newestMark(connection));
        }
    }

    private static void apply(FileChannel channel, Change change, boolean half) throws IOException {
        if (change.bytes().length == 0) {
            if (!half) channel.truncate(change.at());
            return;
        }
        ByteBuffer bytes = ByteBuffer.wrap(change.bytes(), 0, change.bytes().length / (half ? 2 : 1));
        for (long at = change.at(); bytes.hasRemaining(); ) at += channel.write(bytes, at);
    }
}
