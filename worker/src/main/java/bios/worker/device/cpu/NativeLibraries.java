package bios.worker.device.cpu;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.DigestInputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/// Shared libraries from the class path, unpacked once per user to a folder named by their content.
final class NativeLibraries {
    private NativeLibraries() {}

    /// Where this user's unpacked libraries lie: `$XDG_CACHE_HOME/bios/native`, or `~/.cache/bios/native`.
    static Path cache() {
        var xdg = System.getenv("XDG_CACHE_HOME");
        var base = xdg == null || xdg.isBlank() ? Path.of(System.getProperty("user.home"), ".cache") : Path.of(xdg);
        return base.resolve("bios").resolve("native");
    }

    /// The file `cache/<hash>/<name>` with the content of a resource; null if the class path has no such resource.
    /// A file that another process is writing is never seen: it appears by an atomic rename.
    ///
    /// @throws UncheckedIOException if the cache cannot be written
    static Path unpack(Path cache, String resource) {
        try (var in = NativeLibraries.class.getResourceAsStream(resource)) {
            if (in == null) return null;
            return unpack(cache, in, resource.substring(resource.lastIndexOf('/') + 1));
        } catch (IOException e) {
            throw new UncheckedIOException("cannot unpack " + resource + " to " + cache, e);
        }
    }

    private static Path unpack(Path cache, InputStream in, String name) throws IOException {
        Files.createDirectories(cache);
        var part = Files.createTempFile(cache, name, ".part");
        try {
            var digest = sha256();
            try (var hashed = new DigestInputStream(in, digest)) {
                Files.copy(hashed, part, StandardCopyOption.REPLACE_EXISTING);
            }
            var folder = cache.resolve(HexFormat.of().formatHex(digest.digest(), 0, 16));
            var file = folder.resolve(name);
            if (Files.exists(file) && Files.size(file) == Files.size(part)) return file;
            Files.createDirectories(folder);
            try {
                Files.move(part, file, StandardCopyOption.ATOMIC_MOVE);
            } catch (AtomicMoveNotSupportedException e) {
                Files.move(part, file, StandardCopyOption.REPLACE_EXISTING);
            }
            return file;
        } finally {
            Files.deleteIfExists(part);
        }
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every JDK has SHA-256", e);
        }
    }
}
