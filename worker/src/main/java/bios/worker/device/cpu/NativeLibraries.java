package bios.worker.device.cpu;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.JarURLConnection;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.DigestInputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;

/// Shared libraries from the class path, unpacked once per user to a folder named by their content.
final class NativeLibraries {
    private NativeLibraries() {}

    /// The folder of this user's unpacked libraries: `$XDG_CACHE_HOME/bios/native`, or
    /// `~/.cache/bios/native`.
    static Path cache() {
        var xdg = System.getenv("XDG_CACHE_HOME");
        var base = xdg == null || xdg.isBlank()
                ? Path.of(System.getProperty("user.home"), ".cache") : Path.of(xdg);
        return base.resolve("bios").resolve("native");
    }

    /// A library of the class path as a file: in the user's cache, or in a temporary folder of this process
    /// if the cache cannot be written. Null if the class path has no such resource.
    ///
    /// @throws UncheckedIOException if neither folder can be written
    static Path unpack(String resource) {
        try {
            return unpack(cache(), resource);
        } catch (UncheckedIOException e) {
            try {
                var folder = Files.createTempDirectory("bios-native");
                var file = unpack(folder, resource);
                if (file != null)
                    List.of(folder, file.getParent(), file).forEach(f -> f.toFile().deleteOnExit());
                return file;
            } catch (IOException second) {
                e.addSuppressed(second);
                throw e;
            }
        }
    }

    /// The file `cache/<key>/<name>` with the content of a resource; null if the class path has no such
    /// resource. The key is the checksum and size that the jar lists, so that an existing file is found
    /// without unpacking; it is a SHA-256 if there is no jar. A file is written under another name and
    /// renamed atomically, so no process reads a partly written one.
    ///
    /// @throws UncheckedIOException if the cache cannot be written
    static Path unpack(Path cache, String resource) {
        var url = NativeLibraries.class.getResource(resource);
        if (url == null) return null;
        var name = resource.substring(resource.lastIndexOf('/') + 1);
        try {
            if (!(url.openConnection() instanceof JarURLConnection jar))
                return unpack(cache, url.openStream(), name, null);
            var entry = jar.getJarEntry();
            var folder = cache.resolve("%08x-%d".formatted(entry.getCrc(), entry.getSize()));
            var file = folder.resolve(name);
            if (Files.exists(file) && Files.size(file) == entry.getSize()) return file;
            return unpack(cache, jar.getInputStream(), name, folder);
        } catch (IOException e) {
            throw new UncheckedIOException("cannot unpack " + resource + " to " + cache, e);
        }
    }

    private static Path unpack(Path cache, InputStream in, String name, Path known) throws IOException {
        Files.createDirectories(cache);
        var part = Files.createTempFile(cache, name, ".part");
        try {
            var digest = sha256();
            try (var hashed = new DigestInputStream(in, digest)) {
                Files.copy(hashed, part, StandardCopyOption.REPLACE_EXISTING);
            }
            var folder = known != null
                    ? known : cache.resolve(HexFormat.of().formatHex(digest.digest(), 0, 16));
            var file = folder.resolve(name);
            Files.createDirectories(folder);
            return Files.move(part, file, StandardCopyOption.ATOMIC_MOVE,
                    StandardCopyOption.REPLACE_EXISTING);
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
