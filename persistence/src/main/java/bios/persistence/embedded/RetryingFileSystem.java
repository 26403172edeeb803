package bios.persistence.embedded;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicBoolean;
import org.h2.store.fs.FileBase;
import org.h2.store.fs.FilePath;
import org.h2.store.fs.FilePathWrapper;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A file system of H2 that repeats writes while the disk is full. H2 closes a database that it cannot write,
/// for all connections until the process ends; with this file system writes block until there is room, and
/// then succeed. A process that shuts down does not wait.
public final class RetryingFileSystem extends FilePathWrapper {
    /// The prefix of the path in the database's address.
    static final String SCHEME = "retry";
    private static final Logger LOG = LoggerFactory.getLogger(RetryingFileSystem.class);
    private static final long RETRY_MILLIS = 500;
    private static final long FULL_BELOW_BYTES = 1 << 20;

    private static final AtomicBoolean SHUTTING_DOWN = new AtomicBoolean();

    static {
        // Acknowledged writes are on the disk.
        Runtime.getRuntime().addShutdownHook(Thread.ofPlatform().unstarted(() -> SHUTTING_DOWN.set(true)));
    }

    /// Called by H2, which creates an instance for each path.
    public RetryingFileSystem() {}

    /// Registers [#SCHEME] with H2.
    static void register() {
        FilePath.register(new RetryingFileSystem());
    }

    @Override public String getScheme() {
        return SCHEME;
    }

    @Override public FileChannel open(String mode) throws IOException {
        return new RetryingFile(getBase().open(mode), Path.of(getBase().toString()));
    }

    /// One attempt to write.
    interface Write {
        /// @return how many bytes were written
        int attempt() throws IOException;
    }

    /// Whether a write to `file` failed because the disk is full.
    static boolean full(Path file, IOException failed) {
        String said = String.valueOf(failed.getMessage()).toLowerCase(Locale.ROOT);
        if (said.contains("no space left") || said.contains("quota exceeded")
                || said.contains("not enough space")) return true;
        try {
            return Files.getFileStore(file).getUsableSpace() < FULL_BELOW_BYTES;
        } catch (IOException _) {
            return false;
        }
    }

    /// Repeats `write` until it succeeds or fails for another reason than a full disk.
    static int write(Path file, Write write) throws IOException {
        boolean waiting = false;
        while (true) {
            try {
                int written = write.attempt();
                if (waiting) LOG.info("{} is written again: the disk has room", file);
                return written;
            } catch (IOException failed) {
                if (SHUTTING_DOWN.get() || !full(file, failed)) throw failed;
                if (!waiting) LOG.warn("{} cannot be written, the disk is full: {}; writes wait until there"
                        + " is room", file, failed.getMessage());
                waiting = true;
                pause(failed);
            }
        }
    }

    private static void pause(IOException failed) throws IOException {
        try {
            Thread.sleep(RETRY_MILLIS); // edge: waits for room on a disk
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
            throw failed;
        }
    }

    private static final class RetryingFile extends FileBase {
        private final FileChannel base;
        private final Path file;

        RetryingFile(FileChannel base, Path file) {
            this.base = base;
            this.file = file;
        }

        @Override public int write(ByteBuffer from) throws IOException {
            return RetryingFileSystem.write(file, () -> base.write(from));
        }

        @Override public int write(ByteBuffer from, long position) throws IOException {
            return RetryingFileSystem.write(file, () -> base.write(from, position));
        }

        @Override public int read(ByteBuffer into) throws IOException {
            return base.read(into);
        }

        @Override public int read(ByteBuffer into, long position) throws IOException {
            return base.read(into, position);
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

        @Override public FileChannel truncate(long size) throws IOException {
            base.truncate(size);
            return this;
        }

        @Override public void force(boolean metadata) throws IOException {
            base.force(metadata);
        }

        @Override public FileLock tryLock(long position, long size, boolean shared) throws IOException {
            return base.tryLock(position, size, shared);
        }

        @Override protected void implCloseChannel() throws IOException {
            base.close();
        }

        @Override public String toString() {
            return file.toString();
        }
    }
}
