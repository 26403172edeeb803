package bios.coordinator.gateway;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Maps API keys to accounts.
public sealed interface Accounts {
    /// The account of every caller when the service has no key file.
    String DEFAULT = "default";

    /// The caller that `key` belongs to; empty if the key is unknown.
    Optional<Caller> caller(Optional<String> key);

    /// The key of a request, from its headers `X-API-Key` or `Authorization: Bearer`.
    static Optional<String> keyIn(String apiKey, String authorization) {
        return Optional.ofNullable(apiKey).or(() -> Optional.ofNullable(authorization)
                .filter(value -> value.regionMatches(true, 0, "Bearer ", 0, 7))
                .map(value -> value.substring(7).strip()));
    }

    /// The caller of a key by the id of the key; empty if there is no such key any more.
    Optional<Caller> callerOfKey(String keyId);

    /// The account that `key` belongs to; empty if the key is unknown.
    default Optional<String> of(Optional<String> key) {
        return caller(key).map(Caller::account);
    }

    /// Who sends a request.
    ///
    /// @param keyId of the key that was sent, see [ApiKey#id]; empty without keys
    record Caller(String account, ApiKey.Scope scope, String keyId) {}

    /// Every caller is [#DEFAULT], whatever key is sent, and may do everything.
    static Accounts open() {
        return new Open();
    }

    /// Reads a file of lines, each an [ApiKey]; empty lines and lines that begin with `#` are ignored. An
    /// account may have several keys. A change of the file takes effect within a second; while the changed
    /// file is wrong, the keys before the change are valid.
    ///
    /// @throws IllegalArgumentException with the number of the wrong line, never with the key
    static Accounts fromFile(Path file) throws IOException {
        return new KeyFile(file, System::nanoTime); // edge: when to look at the file again
    }

    /// The same from lines; `source` names them in messages.
    static Accounts fromLines(String source, List<String> lines) {
        List<ApiKey> keys = ApiKey.readAll(source, lines);
        if (keys.isEmpty())
            throw new IllegalArgumentException(
            source + " contains no key, so no request could be authenticated");
        return new Keyed(keys);
    }

    /// No key is needed.
    record Open() implements Accounts {
        private static final Caller ANYBODY = new Caller(DEFAULT, ApiKey.Scope.OPERATOR, "");

        @Override public Optional<Caller> caller(Optional<String> key) {
            return Optional.of(ANYBODY);
        }

        @Override public Optional<Caller> callerOfKey(String keyId) {
            return Optional.of(ANYBODY);
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

        @Override public Optional<Caller> caller(Optional<String> key) {
            return current().caller(key);
        }

        @Override public Optional<Caller> callerOfKey(String keyId) {
            return current().callerOfKey(keyId);
        }

        private Accounts current() {
            long now = nanos.getAsLong();
            long before = looked.get();
            if (now - before >= LOOK_NANOS && looked.compareAndSet(before, now)) readIfChanged();
            return keys;
        }

        private void readIfChanged() {
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

    /// Has digests of keys only; compares each in constant time.
    final class Keyed implements Accounts {
        private final List<ApiKey> keys;

        private Keyed(List<ApiKey> keys) {
            this.keys = List.copyOf(keys);
        }

        @Override public Optional<Caller> caller(Optional<String> key) {
            if (key.isEmpty()) return Optional.empty();
            byte[] shown = DerivedIds.sha256(key.get());
            Caller found = null;
            for (ApiKey candidate : keys)
                if (MessageDigest.isEqual(candidate.digest(), shown)) found = candidate.caller();
            return Optional.ofNullable(found);
        }

        @Override public Optional<Caller> callerOfKey(String keyId) {
            return keys.stream().filter(key -> key.id().equals(keyId)).map(ApiKey::caller).findFirst();
        }
    }
}
