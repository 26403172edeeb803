package bios.persistence.embedded;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.h2.api.ErrorCode;
import org.h2.mvstore.DataUtils;
import org.h2.mvstore.MVStore;
import org.h2.mvstore.MVStoreException;

/// The database of a single process: an H2 database in one file with events, snapshots, the run index and
/// sampling tasks. A commit that has returned survives the death of the process (`WRITE_DELAY=0`; with H2's
/// default it may be lost), not the loss of power. While the disk is full, writes wait
/// ([RetryingFileSystem]).
public final class EmbeddedDatabase {
    /// The only user, without a password: access to the file gives access to the data.
    static final String USER = "sa";
    private static final String SCHEMA = "/sql/embedded-schema-1.sql";
    private static final int ALREADY_OPEN = 90020;
    /// Contents up to this size are stored in their row; larger ones in tables of their own, at twice the
    /// cost.
    private static final int BYTES_IN_ROW = 8192;
    private static final int HEADER_BYTES = 4096;
    /// The beginning of a chunk, at a multiple of the header's size.
    private static final Pattern CHUNK = Pattern.compile("chunk:([0-9a-f]{1,15}),");
    private static final int CHUNK_HEADER_BYTES = 64;
    /// The space of a chunk is used again so long after it was written; H2's default of 45 s makes the file
    /// grow by as many seconds of commits.
    static final int RETENTION_MILLIS = 5_000;

    /// Pages of the database in memory. Its own default grows with the heap.
    private static final int CACHE_KIB = 32 << 10;
    /// A page is split above this size. A commit writes every page that it changed, and the pages above it in
    /// the tree. With H2's default of 16 KiB, the commits of a journal write a quarter to a half more.
    private static final int PAGE_BYTES = 4096;

    private EmbeddedDatabase() {}

    /// The name of the database in `folder`.
    static String name(Path folder) {
        String file = folder.toAbsolutePath().normalize().resolve("journal").toString();
        if (file.indexOf(';') >= 0)
            throw new IllegalArgumentException("the data folder " + folder
                    + " must not have ';' in its name");
        RetryingFileSystem.register();
        return RetryingFileSystem.SCHEME + ":" + file;
    }

    /// The JDBC address of the database in `folder`.
    public static String url(Path folder) {
        return "jdbc:h2:" + name(folder) + ";DATABASE_TO_UPPER=false;DB_CLOSE_ON_EXIT=FALSE;WRITE_DELAY=0"
                + ";MAX_LENGTH_INPLACE_LOB=" + BYTES_IN_ROW + ";CACHE_SIZE=" + CACHE_KIB
                + ";RETENTION_TIME=" + RETENTION_MILLIS + ";PAGE_SIZE=" + PAGE_BYTES;
    }

    /// The JDBC address of the existing database in `folder`, which is not changed.
    public static String readOnlyUrl(Path folder) {
        return url(folder) + ";ACCESS_MODE_DATA=r;IFEXISTS=TRUE";
    }

    /// The file of the database in `folder`.
    public static Path file(Path folder) {
        return folder.resolve("journal.mv.db");
    }

    /// Puts a copy of a database file in the place of the database in `folder`. It is a file of its own: the
    /// database may go on holding the lock of a file that it failed to open.
    public static void replace(Path folder, Path copy) throws IOException {
        Path fresh = folder.resolve("fresh.mv.db");
        Files.copy(copy, fresh, StandardCopyOption.REPLACE_EXISTING);
        Files.move(fresh, file(folder), StandardCopyOption.REPLACE_EXISTING);
    }

    /// Writes a new header, of two equal blocks, over that of the file: the database then searches the file
    /// for its newest chunk, as after the death of a process.
    public static void replaceHeader(Path folder) throws IOException {
        Path empty = folder.resolve("header.mv.db");
        Files.deleteIfExists(empty);
        MVStore.open(empty.toString()).close();
        String header = new String(Files.readAllBytes(empty), 0, HEADER_BYTES, StandardCharsets.ISO_8859_1)
                .strip();
        Files.delete(empty);
        byte[] fields = header.substring(0, header.lastIndexOf(",fletcher:")).replaceAll(",clean:\\d+", "")
                .getBytes(StandardCharsets.ISO_8859_1);
        byte[] line = (new String(fields, StandardCharsets.ISO_8859_1) + ",fletcher:"
                + Integer.toHexString(DataUtils.getFletcher32(fields, 0, fields.length)) + "\n")
                .getBytes(StandardCharsets.ISO_8859_1);
        ByteBuffer blocks = ByteBuffer.allocate(2 * HEADER_BYTES).put(0, line).put(HEADER_BYTES, line);
        replace(folder, file(folder));
        try (FileChannel channel = FileChannel.open(file(folder), StandardOpenOption.WRITE)) {
            while (blocks.hasRemaining()) channel.write(blocks, blocks.position());
            channel.force(true);
        }
    }

    /// Removes the mark of the newest chunk of the file, which holds the root of the newest state: the
    /// database then finds the state before it.
    ///
    /// @return whether there was one
    public static boolean removeNewestState(Path folder) throws IOException {
        replace(folder, file(folder));
        try (FileChannel channel = FileChannel.open(file(folder), StandardOpenOption.READ,
                StandardOpenOption.WRITE)) {
            long newest = -1;
            long position = -1;
            ByteBuffer block = ByteBuffer.allocate(CHUNK_HEADER_BYTES);
            for (long at = 2 * HEADER_BYTES; at < channel.size(); at += HEADER_BYTES) {
                channel.read(block.clear(), at);
                Matcher header = CHUNK.matcher(new String(block.array(), 0, block.position(),
                        StandardCharsets.ISO_8859_1));
                if (!header.lookingAt()) continue;
                long number = Long.parseLong(header.group(1), 16);
                if (number <= newest) continue;
                newest = number;
                position = at;
            }
            if (position < 0) return false;
            channel.write(ByteBuffer.wrap("gone:".getBytes(StandardCharsets.ISO_8859_1)), position);
            return true;
        }
    }

    /// Whether the folder has a database that is not empty.
    public static boolean exists(Path folder) {
        try {
            Path file = file(folder);
            return Files.exists(file) && Files.size(file) > 0;
        } catch (IOException failed) {
            throw new UncheckedIOException("the data folder " + folder + " cannot be read: "
                    + failed.getMessage(), failed);
        }
    }

    /// A new connection to the database at `url`.
    public static Connection connect(String url) throws SQLException {
        return DriverManager.getConnection(url, USER, "");
    }

    /// Creates the folder and the tables of events and snapshots if they do not exist. [DatabaseInUse] if
    /// another process has the database open, [DatabaseUnusable] if it cannot be opened for changes.
    public static void createSchema(Path folder) {
        try {
            Files.createDirectories(folder);
        } catch (IOException failed) {
            throw new UncheckedIOException("the data folder " + folder + " cannot be created: "
                    + failed.getMessage(), failed);
        }
        try (Connection connection = connect(url(folder));
                Statement statement = connection.createStatement()) {
            for (String sql : schema().split(";\\s*\n")) if (!sql.isBlank()) statement.execute(sql);
        } catch (SQLException failed) {
            throw inUse(folder, failed).<RuntimeException>map(used -> used)
                    .orElseGet(() -> new DatabaseUnusable(folder, failed));
        }
    }

    /// The failure of an open database, if another process has it open.
    public static Optional<DatabaseInUse> inUse(Path folder, SQLException failed) {
        return failed.getErrorCode() == ALREADY_OPEN ? Optional.of(new DatabaseInUse(folder, failed))
                : Optional.empty();
    }

    /// Whether a statement failed because the file is not what was written.
    public static boolean isDamage(SQLException failed) {
        if (failed.getErrorCode() == ErrorCode.FILE_CORRUPTED_1
                || failed.getErrorCode() == ErrorCode.GENERAL_ERROR_1) return true;
        for (Throwable cause = failed; cause != null; cause = cause.getCause())
            if (cause instanceof MVStoreException store
                    && store.getErrorCode() == DataUtils.ERROR_FILE_CORRUPT) return true;
        return false;
    }

    private static String schema() {
        try (InputStream in = EmbeddedDatabase.class.getResourceAsStream(SCHEMA)) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
