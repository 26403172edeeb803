package bios.worker.load;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/// A file as it was at one moment: a file whose identity is unchanged has the same content. Links are
/// followed.
///
/// @param modifiedNanos time of the last change, nanoseconds since the epoch
/// @param key device and inode, where the file system has them
public record FileIdentity(Path path, long bytes, long modifiedNanos, String key) {
    /// The file as it is now.
    public static FileIdentity of(Path path) throws IOException {
        var attributes = Files.readAttributes(path, BasicFileAttributes.class);
        return new FileIdentity(path, attributes.size(), attributes.lastModifiedTime()
                .to(TimeUnit.NANOSECONDS), String.valueOf(attributes.fileKey()));
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
