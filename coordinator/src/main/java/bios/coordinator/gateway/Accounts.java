package bios.coordinator.gateway;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.regex.Pattern;

/// Who may use the service, and which account a key belongs to.
public sealed interface Accounts {
    /// The account of everybody where no keys are asked for.
    String DEFAULT = "default";

    /// The account of the caller that showed `key`; empty: nobody we know.
    Optional<String> of(Optional<String> key);

    /// Everybody is [#DEFAULT], whatever key is shown.
    static Accounts open() {
        return new Open();
    }

    /// Reads a file of lines `<account> <key>`; empty lines and such that begin with `#` are comments. An
    /// account may have several keys.
    ///
    /// @throws IllegalArgumentException naming the line that is wrong, never the key
    static Accounts fromFile(Path file) throws IOException {
        return fromLines(file.toString(), Files.readAllLines(file));
    }

    /// The same from lines; `source` names them in messages.
    static Accounts fromLines(String source, List<String> lines) {
        var keys = new ArrayList<Keyed.Entry>();
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
            byte[] digest = Ids.sha256(words[1]);
            if (keys.stream().anyMatch(key -> MessageDigest.isEqual(key.digest(), digest)))
                throw new IllegalArgumentException(at + "the key is there already");
            keys.add(new Keyed.Entry(words[0], digest));
        }
        if (keys.isEmpty())
            throw new IllegalArgumentException(source + " holds no key; nobody could use the service");
        return new Keyed(List.copyOf(keys));
    }

    /// Nobody needs a key.
    record Open() implements Accounts {
        @Override public Optional<String> of(Optional<String> key) {
            return Optional.of(DEFAULT);
        }
    }

    /// Only digests of keys are held; every one is compared, in constant time.
    final class Keyed implements Accounts {
        private static final Pattern ACCOUNT = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
        private final List<Entry> entries;

        private record Entry(String account, byte[] digest) {}

        private Keyed(List<Entry> entries) {
            this.entries = entries;
        }

        @Override public Optional<String> of(Optional<String> key) {
            if (key.isEmpty()) return Optional.empty();
            byte[] shown = Ids.sha256(key.get());
            String found = null;
            for (Entry entry : entries)
                if (MessageDigest.isEqual(entry.digest(), shown)) found = entry.account();
            return Optional.ofNullable(found);
        }
    }
}
