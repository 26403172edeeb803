package bios.coordinator.gateway;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.regex.Pattern;

/// Maps API keys to accounts.
public sealed interface Accounts {
    /// The account of every caller when the service has no key file.
    String DEFAULT = "default";

    /// The account that `key` belongs to; empty if the key is unknown.
    Optional<String> of(Optional<String> key);

    /// Every caller is [#DEFAULT], whatever key is sent.
    static Accounts open() {
        return new Open();
    }

    /// Reads a file of lines `<account> <key>`; empty lines and lines that begin with `#` are ignored. An
    /// account may have several keys.
    ///
    /// @throws IllegalArgumentException with the number of the wrong line, never with the key
    static Accounts fromFile(Path file) throws IOException {
        return fromLines(file.toString(), Files.readAllLines(file));
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
