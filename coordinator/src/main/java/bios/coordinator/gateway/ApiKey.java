package bios.coordinator.gateway;

import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.regex.Pattern;

/// An API key as its file has it: `<account> sha256:<digest> [scope] [created=<date>]`. In place of the
/// digest the key itself may stand, for files that people write.
///
/// @param digest SHA-256 of the key
/// @param created the day on which it was made; empty: not known
public record ApiKey(String account, byte[] digest, Scope scope, String created) {
    /// How a key begins: Tinker's clients send no others.
    public static final String PREFIX = "tml-";

    private static final Pattern ACCOUNT = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
    private static final Pattern HASHED = Pattern.compile("sha256:[0-9a-f]{64}");
    private static final String CREATED = "created=";
    private static final int RANDOM_BYTES = 32;
    private static final int ID_DIGITS = 12;

    /// What the holder of a key may do.
    public enum Scope {
        /// List, describe and download; create, change and delete nothing.
        READ,
        /// Everything with the account's own.
        WRITE,
        /// As `WRITE`, and read usage and audit log of all accounts.
        OPERATOR;

        /// The scope of this name.
        static Scope of(String name) {
            for (Scope scope : values()) if (scope.word().equals(name)) return scope;
            throw new IllegalArgumentException("'" + name
                    + "' is not a scope; expected read, write or operator");
        }

        /// Its name in key files.
        public String word() {
            return name().toLowerCase(Locale.ROOT);
        }
    }

    public ApiKey {
        if (!isAccount(account)) throw new IllegalArgumentException(noAccount(account));
    }

    /// Whether an account can have this name.
    static boolean isAccount(String name) {
        return ACCOUNT.matcher(name).matches();
    }

    /// Why an account cannot have this name.
    static String noAccount(String name) {
        return "'" + name + "' is not an account; use up to 64 letters, digits, '.', '_' or '-'";
    }

    /// A new random key. It is not stored: whoever calls this keeps it.
    public static String random(SecureRandom random) {
        byte[] bytes = new byte[RANDOM_BYTES];
        random.nextBytes(bytes);
        return PREFIX + Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }

    /// The entry of a key.
    public static ApiKey of(String account, String key, Scope scope, String created) {
        return new ApiKey(account, DerivedIds.sha256(key), scope, created);
    }

    /// The keys of a file; `source` names it in messages, which never contain a key.
    public static List<ApiKey> readAll(String source, List<String> lines) {
        var keys = new ArrayList<ApiKey>();
        for (int i = 0; i < lines.size(); i++) {
            String line = lines.get(i).strip();
            if (line.isEmpty() || line.startsWith("#")) continue;
            try {
                ApiKey key = read(line.split("\\s+"));
                if (keys.stream().anyMatch(k -> MessageDigest.isEqual(k.digest(), key.digest())))
                    throw new IllegalArgumentException("the key is a duplicate");
                keys.add(key);
            } catch (IllegalArgumentException wrong) {
                throw new IllegalArgumentException(source + ", line " + (i + 1) + ": " + wrong.getMessage(),
                        wrong);
            }
        }
        return List.copyOf(keys);
    }

    private static ApiKey read(String[] words) {
        String created = words[words.length - 1].startsWith(CREATED)
                ? words[words.length - 1].substring(CREATED.length()) : "";
        int count = words.length - (created.isEmpty() ? 0 : 1);
        if (count < 2 || count > 3)
            throw new IllegalArgumentException("expected '<account> <key> [read|write|operator]'");
        Scope scope = count == 3 ? Scope.of(words[2]) : Scope.WRITE;
        if (HASHED.matcher(words[1]).matches())
            return new ApiKey(words[0], HexFormat.of().parseHex(words[1].substring(7)), scope, created);
        if (words[1].length() < 8)
            throw new IllegalArgumentException("the key is shorter than 8 characters");
        return of(words[0], words[1], scope, created);
    }

    /// The public id of the key: the first digits of its digest, from which the key cannot be computed.
    public String id() {
        return HexFormat.of().formatHex(digest).substring(0, ID_DIGITS);
    }

    /// The line of a key file that admits the key; it contains the digest, not the key.
    public String line() {
        return account + " sha256:" + HexFormat.of().formatHex(digest) + " " + scope.word()
                + (created.isEmpty() ? "" : " " + CREATED + created);
    }

    Accounts.Caller caller() {
        return new Accounts.Caller(account, scope, id());
    }

    @Override public boolean equals(Object other) {
        return other instanceof ApiKey key && key.account.equals(account) && key.scope == scope
                && key.created.equals(created) && MessageDigest.isEqual(key.digest, digest);
    }

    @Override public int hashCode() {
        return Arrays.hashCode(digest);
    }
}
