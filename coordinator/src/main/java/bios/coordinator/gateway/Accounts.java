package bios.coordinator.gateway;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Maps API keys to accounts.
public sealed interface Accounts {
    /// The account of every caller when the service has no key file.
    String DEFAULT = "default";

    /// The account that `key` belongs to; empty if the key is unknown.
    Optional<String> of(Optional<String> key);

    /// The key of a request, from its headers `X-API-Key` or `Authorization: Bearer`.
    static Optional<String> keyIn(String apiKey, String authorization) {
        return Optional.ofNullable(apiKey).or(() -> Optional.ofNullable(authorization)
                .filter(value -> value.regionMatches(true, 0, "Bearer ", 0, 7))
                .map(value -> value.substring(7).strip()));
    }

    /// Every caller is [#DEFAULT], whatever key is sent.
    static Accounts open() {
        return new Open();
    }

    /// Reads a file of lines `<account> <key>`; empty lines and lines that begin with `#` are ignored. An
    /// account may have several keys. A change of the file takes effect within a second; while the changed
    /// file is wrong, the keys before the change are valid.
    ///
    /// @throws IllegalArgumentException with the number of the wrong line, never with the key
    static Accounts fromFile(Path file) throws IOException {
        return new KeyFile(file, System::nanoTime); // edge: when to look at the file again
    }

    /// The same from lines; `source` names them in messages.
    static Accounts fromLines(String source, List<String> lines) {
        var keys = new ArrayList<Keyed.ApiKey>();
        for (int i = 0; i < lines.size(); i++) {
            String line = lines.get(i).strip();
            if (line.isEmpty() || line.startsWith("#")) continue;
            String at = source + ", line " + (i + 1) + ": ";
            String[] words = line.split("\\s+");
            if (words.length != 2) throw new IllegalArgumentException(at + "expected '<account> <key>'");
            if (!Keyed.ACCOUNT.matcher(words[0]).matches())
                throw new IllegalArgumentException(at + "'" + words[0]
                        + "' is not an account; use up to 64 letters, digits, '.', '_' or '-'");
            if (words[1].length() < 8)
                throw new IllegalArgumentException(at + "the key is shorter than 8 characters");
            byte[] digest = DerivedIds.sha256(words[1]);
            if (keys.stream().anyMatch(key -> MessageDigest.isEqual(key.digest(), digest)))
                throw new IllegalArgumentException(at + "the key is a duplicate");
            keys.add(new Keyed.ApiKey(words[0], digest));
        }
        if (keys.isEmpty())
            throw new IllegalArgumentException(
            source + " contains no key, so no request could be authenticated");
        return new Keyed(List.copyOf(keys));
    }

    /// No key is needed.
    record Open() implements Accounts {
        @Override public Optional<String> of(Optional<String> key) {
            return Optional.of(DEFAULT);
        }
    }

    /// The keys of a file, as it is now.
    final class KeyFile implements Accounts {
        private static final Logger LOG = LoggerFactory.getLogger(Accounts.class);
        private static final long LOOK_NANOS = 1_000_000_000;

        private final Path file;
        private final LongSupplier nanos;
        private final AtomicLong looked;
        private volatile Accounts keys;
        private volatile Version version;

        /// What changes with the content of the file.
        private record Version(FileTime modified, long bytes, Optional<Object> identity) {
            static Version of(Path file) throws IOException {
                BasicFileAttributes now = Files.readAttributes(file, BasicFileAttributes.class);
                return new Version(now.lastModifiedTime(), now.size(), Optional.ofNullable(now.fileKey()));
            }
        }

        KeyFile(Path file, LongSupplier nanos) throws IOException {
            this.file = file;
            this.nanos = nanos;
            this.version = Version.of(file);
            this.keys = read();
            this.looked = new AtomicLong(nanos.getAsLong());
        }

        private Accounts read() throws IOException {
            return fromLines(file.toString(), Files.readAllLines(file));
        }

        @Override public Optional<String> of(Optional<String> key) {
            long now = nanos.getAsLong();
            long before = looked.get();
            if (now - before >= LOOK_NANOS && looked.compareAndSet(before, now)) look();
            return keys.of(key);
        }

        private void look() {
            Version before = version;
            try {
                Version now = Version.of(file);
                if (now.equals(before)) return;
                version = now;
                keys = read();
                LOG.info("the keys in {} have changed", file);
            } catch (IOException | IllegalArgumentException wrong) {
                if (version != before)
                    LOG.warn("the keys before the change stay valid: {}", wrong.getMessage());
            }
        }
    }

    /// Stores digests of keys only; compares each in constant time.
    final class Keyed implements Accounts {
        private static final Pattern ACCOUNT = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
        private final List<ApiKey> keys;

        private record ApiKey(String account, byte[] digest) {}

        private Keyed(List<ApiKey> keys) {
            this.keys = keys;
        }

        @Override public Optional<String> of(Optional<String> key) {
            if (key.isEmpty()) return Optional.empty();
            byte[] shown = DerivedIds.sha256(key.get());
            String found = null;
            for (ApiKey candidate : keys)
                if (MessageDigest.isEqual(candidate.digest(), shown)) found = candidate.account();
            return Optional.ofNullable(found);
        }
    }
}
