package bios.persistence.blob;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.stream.Stream;

/// Blobs as files: `<root>/blobs/<scope>/<SHA-256>`. A blob is written to a file of this process's own folder
/// under `<root>/writing`, forced to the disk, renamed into place, and its folders forced, so that it is
/// there as a whole or not at all. Several processes may share a root. What a crash left in `writing` is
/// swept when a store is opened: a live process holds a lock in its folder.
public final class FileBlobStore implements BlobStore, AutoCloseable {
    private static final int BUFFER = 1 << 16;
    private static final int ATTEMPTS = 100;
    private final Path blobs;
    private final Path writing;
    private final FileChannel lockFile;

    private FileBlobStore(Path blobs, Path writing, FileChannel lockFile) {
        this.blobs = blobs;
        this.writing = writing;
        this.lockFile = lockFile;
    }

    /// Opens (and makes, if need be) the store under `root`.
    public static FileBlobStore open(Path root) {
        try {
            Path blobs = Files.createDirectories(root.resolve("blobs"));
            Path all = Files.createDirectories(root.resolve("writing"));
            sweep(all);
            String own = UUID.randomUUID().toString(); // edge: a name of its own
            // Locked before it is visible, so that no other process sweeps it.
            Path hidden = Files.createDirectory(all.resolve("." + own));
            FileChannel lock = FileChannel.open(hidden.resolve("lock"), StandardOpenOption.CREATE,
                    StandardOpenOption.WRITE);
            lock.lock();
            Path writing = Files.move(hidden, all.resolve(own), StandardCopyOption.ATOMIC_MOVE);
            return new FileBlobStore(blobs, writing, lock);
        } catch (IOException failed) {
            throw new UncheckedIOException("the blob store under " + root + " cannot be opened: "
                    + failed.getMessage(), failed);
        }
    }

    private static void sweep(Path all) throws IOException {
        try (Stream<Path> folders = Files.list(all)) {
            for (Path folder : folders.filter(f -> !f.getFileName().toString().startsWith(".")).toList())
                sweepOne(folder);
        }
    }

    private static void sweepOne(Path folder) throws IOException {
        try (FileChannel channel = FileChannel.open(folder.resolve("lock"), StandardOpenOption.WRITE);
                FileLock lock = channel.tryLock()) {
            if (lock == null) return;
            try (Stream<Path> files = Files.list(folder)) {
                for (Path file : files.toList()) Files.deleteIfExists(file);
            }
            Files.deleteIfExists(folder);
        } catch (NoSuchFileException | OverlappingFileLockException | DirectoryNotEmptyException _) {
            // another process swept it, or another store of this process writes there
        }
    }

    @Override public BlobRef put(String scope, Content content) {
        MessageDigest digest = Digests.sha256();
        Path temporary = writing.resolve(UUID.randomUUID().toString()); // edge: a name of its own
        try {
            long bytes = write(temporary, content, digest);
            var id = new BlobId(scope, Digests.hex(digest));
            Path target = path(id);
            moveInto(temporary, target);
            return new BlobRef(id, bytes);
        } catch (IOException failed) {
            throw new UncheckedIOException("a blob of " + scope + " cannot be written: " + failed, failed);
        } finally {
            discard(temporary);
        }
    }

    private static long write(Path file, Content content, MessageDigest digest) throws IOException {
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.CREATE_NEW,
                StandardOpenOption.WRITE)) {
            var counted = new CountedOutput(
                    new BufferedOutputStream(Channels.newOutputStream(channel), BUFFER),
                    digest);
            content.writeTo(counted);
            counted.flush();
            channel.force(true);
            return counted.bytes();
        }
    }

    private void moveInto(Path temporary, Path target) throws IOException {
        for (int attempt = 1;; attempt++) {
            try {
                makeFolders(target.getParent());
                Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE,
                        StandardCopyOption.REPLACE_EXISTING);
                force(target.getParent());
                return;
            } catch (NoSuchFileException | FileAlreadyExistsException met) {
                // A deletion beside us removed the folder, perhaps between its being there already and a
                // look at
                // it: before the move we try again, behind it the deletion won.
                if (!Files.exists(temporary)) return;
                if (attempt == ATTEMPTS) throw met;
            }
        }
    }

    private static void discard(Path temporary) {
        try {
            Files.deleteIfExists(temporary);
        } catch (IOException _) {
            // swept when the store is opened next
        }
    }

    private void makeFolders(Path folder) throws IOException {
        if (Files.isDirectory(folder)) return;
        makeFolders(folder.getParent());
        Files.createDirectories(folder);
        force(folder.getParent());
    }

    private static void force(Path folder) throws IOException {
        try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
            channel.force(true);
        }
    }

    @Override public InputStream open(BlobRef ref) {
        try {
            return new CheckedStream(ref, Files.newInputStream(path(ref.id())));
        } catch (NoSuchFileException _) {
            throw new BlobMissing(ref.id());
        } catch (IOException failed) {
            throw new UncheckedIOException("blob " + ref.id() + " cannot be read: " + failed, failed);
        }
    }

    @Override public boolean exists(BlobId id) {
        return Files.isRegularFile(path(id));
    }

    @Override public void delete(BlobId id) {
        try {
            Path file = path(id);
            if (!Files.deleteIfExists(file)) return;
            for (Path folder = file.getParent(); !folder.equals(blobs); folder = folder.getParent())
                Files.delete(folder);
        } catch (DirectoryNotEmptyException | NoSuchFileException _) {
            // others lie there, or another deletion was faster
        } catch (IOException failed) {
            throw new UncheckedIOException("blob " + id + " cannot be deleted: " + failed, failed);
        }
    }

    @Override public List<Listed> list(String scope) {
        Path folder = blobs.resolve(scope);
        if (!Files.isDirectory(folder)) return List.of();
        var found = new ArrayList<Listed>();
        try {
            Files.walkFileTree(folder, new SimpleFileVisitor<>() {
                @Override public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) {
                    var id = new BlobId(blobs.relativize(file.getParent()).toString(),
                            file.getFileName().toString());
                    found.add(new Listed(new BlobRef(id, attributes.size()),
                            attributes.lastModifiedTime().toMillis()));
                    return FileVisitResult.CONTINUE;
                }

                // Deleted while we walk.
                @Override public FileVisitResult visitFileFailed(Path file, IOException failed)
                        throws IOException {
                    if (failed instanceof NoSuchFileException) return FileVisitResult.CONTINUE;
                    throw failed;
                }

                @Override public FileVisitResult postVisitDirectory(Path gone, IOException failed)
                        throws IOException {
                    return failed == null ? FileVisitResult.CONTINUE : visitFileFailed(gone, failed);
                }
            });
        } catch (IOException failed) {
            throw new UncheckedIOException("the blobs of " + scope + " cannot be listed: " + failed, failed);
        }
        return found;
    }

    /// Gives up this process's writing folder; blobs stay.
    @Override public void close() {
        try {
            lockFile.close();
            sweepOne(writing);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    /// Where the blobs are, for logs.
    @Override public String toString() {
        return blobs.toString();
    }

    private Path path(BlobId id) {
        return blobs.resolve(id.scope()).resolve(id.sha256());
    }
}
