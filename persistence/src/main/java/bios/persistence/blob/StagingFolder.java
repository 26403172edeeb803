package bios.persistence.blob;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.UUID;
import java.util.stream.Stream;

/// A folder for the temporary files of a store in this process, with a lock while the process runs. Opening
/// one deletes those of crashed processes under the same parent.
final class StagingFolder implements AutoCloseable {
    private final Path folder;
    private final FileChannel lockFile;

    private StagingFolder(Path folder, FileChannel lockFile) {
        this.folder = folder;
        this.lockFile = lockFile;
    }

    /// A new folder under `parent`, which is created if it does not exist and has nothing else in it.
    static StagingFolder open(Path parent) throws IOException {
        Files.createDirectories(parent);
        deleteAbandoned(parent);
        String name = UUID.randomUUID().toString(); // edge: a unique name
        // Locked before it is visible, so that no other process deletes it.
        Path hidden = Files.createDirectory(parent.resolve("." + name));
        FileChannel lock = FileChannel.open(hidden.resolve("lock"), StandardOpenOption.CREATE,
                StandardOpenOption.WRITE);
        lock.lock();
        return new StagingFolder(Files.move(hidden, parent.resolve(name), StandardCopyOption.ATOMIC_MOVE),
                lock);
    }

    private static void deleteAbandoned(Path parent) throws IOException {
        try (Stream<Path> folders = Files.list(parent)) {
            for (Path folder : folders.filter(f -> !f.getFileName().toString().startsWith(".")).toList())
                deleteAbandonedFolder(folder);
        }
    }

    private static void deleteAbandonedFolder(Path folder) throws IOException {
        try (FileChannel channel = FileChannel.open(folder.resolve("lock"), StandardOpenOption.WRITE);
                FileLock lock = channel.tryLock()) {
            if (lock == null) return;
            try (Stream<Path> files = Files.list(folder)) {
                for (Path file : files.toList()) Files.deleteIfExists(file);
            }
            Files.deleteIfExists(folder);
        } catch (NoSuchFileException | OverlappingFileLockException | DirectoryNotEmptyException _) {
            // Deleted by another process, or used by another store of this process.
        }
    }

    /// The path of a new temporary file.
    Path newFile() {
        return folder.resolve(UUID.randomUUID().toString()); // edge: a unique name
    }

    /// Deletes the folder.
    @Override public void close() throws IOException {
        lockFile.close();
        deleteAbandonedFolder(folder);
    }
}
