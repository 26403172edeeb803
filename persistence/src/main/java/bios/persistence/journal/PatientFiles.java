package bios.persistence.journal;

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

/// Files of H2 whose writes wait while the disk is full. H2 closes a database that it cannot write, for all
/// of its connections until the process ends; here nothing fails, and everything goes on when there is room
/// again. A process that is told to end does not wait.
public final class PatientFiles extends FilePathWrapper {
    /// What stands before the path in the database's address.
    static final String SCHEME = "patient";
    private static final Logger LOG = LoggerFactory.getLogger(PatientFiles.class);
    private static final long GLANCE_MILLIS = 500;
    private static final long FULL_BELOW_BYTES = 1 << 20;

    private static final AtomicBoolean ENDING = new AtomicBoolean();

    static {
        // A process that is told to end does not wait for room; what was acknowledged is on the disk.
        Runtime.getRuntime().addShutdownHook(Thread.ofPlatform().unstarted(() -> ENDING.set(true)));
    }

    /// For H2, which makes one for each path.
    public PatientFiles() {}

    /// Makes H2 know [#SCHEME].
    static void register() {
        FilePath.register(new PatientFiles());
    }

    @Override public String getScheme() {
        return SCHEME;
    }

    @Override public FileChannel open(String mode) throws IOException {
        return new Patient(getBase().open(mode), Path.of(getBase().toString()));
    }

    /// A write of some bytes, as of a channel.
    interface Write {
        int once() throws IOException;
    }

    /// Whether a write to `file` has failed because there is no room.
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

    /// Writes, however often it takes while the disk is full; fails as `write` does where it is not.
    static int write(Path file, Write write) throws IOException {
        boolean waits = false;
        while (true) {
            try {
                int written = write.once();
                if (waits) LOG.info("the journal {} has room again and goes on", file);
                return written;
            } catch (IOException failed) {
                if (ENDING.get() || !full(file, failed)) throw failed;
                if (!waits) LOG.warn("the journal {} cannot be written: {}; everything waits until there"
                        + " is room", file, failed.getMessage());
                waits = true;
                rest(failed);
            }
        }
    }

    private static void rest(IOException failed) throws IOException {
        try {
            Thread.sleep(GLANCE_MILLIS); // edge: waits for room on a disk
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
            throw failed;
        }
    }

    private static final class Patient extends FileBase {
        private final FileChannel base;
        private final Path file;

        Patient(FileChannel base, Path file) {
            this.base = base;
            this.file = file;
        }

        @Override public int write(ByteBuffer from) throws IOException {
            return PatientFiles.write(file, () -> base.write(from));
        }

        @Override public int write(ByteBuffer from, long position) throws IOException {
            return PatientFiles.write(file, () -> base.write(from, position));
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
