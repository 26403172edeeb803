package bios.worker.load;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/// A file as it was at one moment: a file whose identity is unchanged has the same content. Links are
/// followed.
///
/// @param modifiedNanos time of the last change of the content, nanoseconds since the epoch; programs can
///     set it, as `rsync --times` and `touch` do
/// @param changedNanos time of the last change of content or attributes, which no program can set (POSIX
///     `ctime`); -1 where the file system has none
/// @param key device and inode, where the file system has them
public record FileIdentity(Path path, long bytes, long modifiedNanos, long changedNanos, String key) {
    private static final String VIEW = "unix";

    /// The file as it is now.
    public static FileIdentity of(Path path) throws IOException {
        boolean changes = path.getFileSystem().supportedFileAttributeViews().contains(VIEW);
        Map<String, Object> all = Files.readAttributes(path, changes
                ? VIEW + ":size,lastModifiedTime,ctime,fileKey" : "size,lastModifiedTime,fileKey");
        return new FileIdentity(path, (Long) all.get("size"), nanos(all.get("lastModifiedTime")),
                changes ? nanos(all.get("ctime")) : -1, String.valueOf(all.get("fileKey")));
    }

    private static long nanos(Object time) {
        return ((FileTime) time).to(TimeUnit.NANOSECONDS);
    }

    /// What has happened to the file since; empty: nothing.
    public Optional<String> change() {
        try {
            FileIdentity now = of(path);
            if (now.equals(this)) return Optional.empty();
            if (now.bytes != bytes)
                return Optional.of(path + " has " + now.bytes + " bytes, and had " + bytes
                        + " when it was loaded");
            return Optional.of(path + (now.key.equals(key) ? " was written to" : " was replaced")
                    + " after it was loaded");
        } catch (NoSuchFileException _) {
            return Optional.of(path + " is gone");
        } catch (IOException failed) {
            return Optional.of(path + " cannot be read (" + failed + ")");
        }
    }

    /// Throws [ModelChanged] if anything has happened to the file.
    public void requireUnchanged() {
        change().ifPresent(what -> {
            throw new ModelChanged(what);
        });
    }

    /// The file as it is now, for callers that have just opened it.
    static FileIdentity opened(Path path) {
        try {
            return of(path);
        } catch (IOException failed) {
            throw new UncheckedIOException(path.toString(), failed);
        }
    }
}
