package bios.persistence.embedded;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.zip.CRC32C;

/// The newest acknowledged event of each entity, in a file beside the embedded database. A record is written
/// after the transaction with the event is committed and before the event is acknowledged, so the database is
/// never behind this file, unless it has lost events. Records survive the death of the process, not the loss
/// of power, as the events do. Each process that writes to the database has a file of its own; those of other
/// processes than the one that has it open are merged into its file when it starts.
///
/// Encoding: a magic of eight bytes, then records of a mark (1 byte), the length of the persistence id (2),
/// the persistence id in UTF-8, the sequence number (8) and the CRC-32C of all that (4), big-endian.
public final class AcknowledgedLog implements AutoCloseable {
    private static final String NAME = "acknowledged.log", OTHERS = "acknowledged-*.log";
    private static final byte[] MAGIC = "BIOSACK1".getBytes(StandardCharsets.US_ASCII);
    private static final byte MARK = (byte) 0xa5;
    private static final int MAX_ID_BYTES = 1024;
    private static final int FIXED_BYTES = 1 + 2 + 8 + 4;
    /// The file is rewritten when it has this many bytes more than twice those of its entries.
    private static final long SLACK_BYTES = 1 << 20;

    private final Path file;
    private final Map<String, Long> newest;
    private FileChannel channel;
    private ByteBuffer buffer = ByteBuffer.allocate(1 << 12);
    private long bytes;
    private long compactAbove;
    /// Whether a write has failed: the file may end in a part of a record, and the next write replaces it.
    private boolean failed;

    /// What a file says.
    ///
    /// @param newest the newest acknowledged sequence number by persistence id
    /// @param damaged whether bytes before the last readable record are unreadable; a torn last record is
    ///         what the death of the process leaves
    public record Contents(Map<String, Long> newest, boolean damaged) {}

    private AcknowledgedLog(Path file, Map<String, Long> newest) throws IOException {
        this.file = file;
        this.newest = newest;
        rewrite();
    }

    /// The file in the journal's folder.
    public static Path file(Path folder) {
        return folder.resolve(NAME);
    }

    /// Reads the files in the journal's folder; empty if there is none.
    public static Optional<Contents> read(Path folder) throws IOException {
        Optional<Contents> all = readFile(file(folder));
        for (Path other : others(folder)) {
            Contents more = readFile(other).orElseThrow();
            var newest = new TreeMap<>(all.map(Contents::newest).orElse(Map.of()));
            more.newest.forEach((id, number) -> newest.merge(id, number, Math::max));
            all = Optional.of(new Contents(newest, more.damaged || all.filter(Contents::damaged)
                    .isPresent()));
        }
        return all;
    }

    private static Optional<Contents> readFile(Path file) throws IOException {
        return Files.exists(file) ? Optional.of(parse(ByteBuffer.wrap(Files.readAllBytes(file))))
                : Optional.empty();
    }

    private static List<Path> others(Path folder) throws IOException {
        var found = new ArrayList<Path>();
        if (!Files.isDirectory(folder)) return found;
        try (var files = Files.newDirectoryStream(folder, OTHERS)) {
            files.forEach(found::add);
        }
        return found;
    }

    /// Opens the file in the journal's folder for records, and rewrites it with what is readable.
    public static AcknowledgedLog open(Path folder) throws IOException {
        return open(folder, "");
    }

    /// The same with the file of another process than the one that has the database open.
    ///
    /// @param writer its name; empty: that process
    public static AcknowledgedLog open(Path folder, String writer) throws IOException {
        Path file = writer.isEmpty() ? file(folder) : folder.resolve(OTHERS.replace("*",
                writer.replaceAll("[^A-Za-z0-9._-]", "_")));
        return new AcknowledgedLog(file,
                new TreeMap<>(readFile(file).map(Contents::newest).orElse(Map.of())));
    }

    /// Replaces the files in the journal's folder by one.
    public static void replace(Path folder, Map<String, Long> newest) throws IOException {
        new AcknowledgedLog(file(folder), new TreeMap<>(newest)).close();
        for (Path other : others(folder)) Files.delete(other);
    }

    /// Removes the files in the journal's folder.
    public static void delete(Path folder) throws IOException {
        Files.deleteIfExists(file(folder));
        for (Path other : others(folder)) Files.delete(other);
    }

    static Contents parse(ByteBuffer all) {
        var newest = new TreeMap<String, Long>();
        boolean damaged = all.limit() < MAGIC.length;
        boolean skipping = false;
        int at = 0;
        if (!damaged && all.slice(0, MAGIC.length).equals(ByteBuffer.wrap(MAGIC))) at = MAGIC.length;
        else skipping = true;
        while (at < all.limit()) {
            int length = record(all, at, newest);
            // A readable record after unreadable bytes: they are not the torn end of the file.
            if (length > 0 && skipping) damaged = true;
            skipping = length == 0;
            at += Math.max(1, length);
        }
        return new Contents(newest, damaged || all.limit() >= MAGIC.length
                && !all.slice(0, MAGIC.length).equals(ByteBuffer.wrap(MAGIC)));
    }

    /// Reads the record at an offset into `newest`.
    ///
    /// @return its length, or 0: there is no whole and undamaged record
    private static int record(ByteBuffer all, int at, Map<String, Long> newest) {
        if (all.get(at) != MARK || all.limit() - at < FIXED_BYTES) return 0;
        int idBytes = all.getShort(at + 1) & 0xffff;
        int length = FIXED_BYTES + idBytes;
        if (idBytes > MAX_ID_BYTES || all.limit() - at < length
                || all.getInt(at + length - 4) != checksum(all.slice(at, length - 4))) return 0;
        byte[] id = new byte[idBytes];
        all.get(at + 3, id);
        newest.merge(new String(id, StandardCharsets.UTF_8), all.getLong(at + 3 + idBytes), Math::max);
        return length;
    }

    private static int checksum(ByteBuffer record) {
        var crc = new CRC32C();
        crc.update(record);
        return (int) crc.getValue();
    }

    /// Notes an event that is committed, to be written with [#write].
    public void add(String persistenceId, long number) {
        byte[] id = persistenceId.getBytes(StandardCharsets.UTF_8);
        if (id.length > MAX_ID_BYTES)
            throw new IllegalArgumentException("a persistence id of " + id.length + " bytes");
        newest.put(persistenceId, number);
        append(id, number);
    }

    private void append(byte[] id, long number) {
        int length = FIXED_BYTES + id.length;
        if (buffer.remaining() < length)
            buffer = ByteBuffer.allocate(2 * (buffer.capacity() + length)).put(buffer.flip());
        int at = buffer.position();
        buffer.put(MARK).putShort((short) id.length).put(id).putLong(number);
        buffer.putInt(checksum(buffer.slice(at, length - 4)));
    }

    /// Writes the noted events. Blocks while the disk is full.
    public void write() throws IOException {
        boolean whole = !failed;
        failed = true;
        if (whole) flush();
        if (!whole || bytes > compactAbove) rewrite();
        failed = false;
    }

    private void flush() throws IOException {
        buffer.flip();
        bytes += buffer.remaining();
        try {
            while (buffer.hasRemaining()) RetryingFileSystem.write(file, () -> channel.write(buffer));
        } finally {
            buffer.clear();
        }
    }

    /// Writes a new file with the newest event of each entity, forces it and puts it in the place of the old
    /// one.
    private void rewrite() throws IOException {
        Path fresh = file.resolveSibling(file.getFileName() + ".new");
        close();
        buffer.clear();
        channel = FileChannel.open(fresh, StandardOpenOption.CREATE, StandardOpenOption.WRITE,
                StandardOpenOption.TRUNCATE_EXISTING);
        bytes = 0;
        buffer.put(MAGIC);
        for (var entry : newest.entrySet()) {
            append(entry.getKey().getBytes(StandardCharsets.UTF_8), entry.getValue());
            if (buffer.position() > 1 << 16) flush();
        }
        flush();
        channel.force(true);
        Files.move(fresh, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        compactAbove = 2 * bytes + SLACK_BYTES;
    }

    @Override public void close() throws IOException {
        if (channel != null) channel.close();
    }
}
