package bios.persistence.blob;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
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

/// Blobs as files: `<root>/blobs/<scope>/<SHA-256>`. A blob is written to a temporary file in a folder of
/// this process under `<root>/writing`, forced to the disk and renamed, and its folders are forced, so that
/// the blob is stored completely or not at all. Several processes may share a root. Opening a store deletes
/// the temporary files of crashed processes: a running process has a lock in its folder.
public final class FileBlobStore implements BlobStore, AutoCloseable {
    private static final int BUFFER = 1 << 16;
    private static final int ATTEMPTS = 100;
    private final Path blobs;
    private final StagingFolder writing;

    private FileBlobStore(Path blobs, StagingFolder writing) {
        this.blobs = blobs;
        this.writing = writing;
    }

    /// Opens the store under `root`; creates its folders if they do not exist.
    public static FileBlobStore open(Path root) {
        try {
            Path blobs = Files.createDirectories(root.resolve("blobs"));
            return new FileBlobStore(blobs, StagingFolder.open(root.resolve("writing")));
        } catch (IOException failed) {
            throw new UncheckedIOException("the blob store under " + root + " cannot be opened: "
                    + failed.getMessage(), failed);
        }
    }

    @Override public BlobRef put(String scope, Content content) {
        MessageDigest digest = Digests.sha256();
        Path temporary = writing.newFile();
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
            var counted = new CountingDigestOutput(
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
                // A concurrent deletion removed the folder: before the move we try again; after the move the
                // blob is deleted.
                if (!Files.exists(temporary)) return;
                if (attempt == ATTEMPTS) throw met;
            }
        }
    }

    private static void discard(Path temporary) {
        try {
            Files.deleteIfExists(temporary);
        } catch (IOException _) {
            // Deleted when the store is opened again.
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
            return new VerifyingInputStream(ref, Files.newInputStream(path(ref.id())));
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
            // The folder has other blobs, or another deletion removed it.
        } catch (IOException failed) {
            throw new UncheckedIOException("blob " + id + " cannot be deleted: " + failed, failed);
        }
    }

    @Override public List<ListedBlob> list(String scope) {
        Path folder = blobs.resolve(scope);
        if (!Files.isDirectory(folder)) return List.of();
        var found = new ArrayList<ListedBlob>();
        try {
            Files.walkFileTree(folder, new SimpleFileVisitor<>() {
                @Override public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) {
                    var id = new BlobId(blobs.relativize(file.getParent()).toString(),
                            file.getFileName().toString());
                    found.add(new ListedBlob(new BlobRef(id, attributes.size()),
                            attributes.lastModifiedTime().toMillis()));
                    return FileVisitResult.CONTINUE;
                }

                // Deleted during the walk.
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

    /// Removes this process's folder of temporary files; blobs stay.
    @Override public void close() {
        try {
            writing.close();
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    /// The folder of the blobs, for logs.
    @Override public String toString() {
        return blobs.toString();
    }

    private Path path(BlobId id) {
        return blobs.resolve(id.scope()).resolve(id.sha256());
    }
}
