package bios.coordinator.gateway;

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.Optional;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/// Tokens that permit the download of one archive until they expire:
/// `<account>.<expiry>.<HMAC-SHA256>`, parts in base64url.
final class SignedUrls {
    private final SecretKeySpec key;

    SignedUrls(byte[] secret) {
        this.key = new SecretKeySpec(secret, "HmacSHA256");
    }

    /// A token with which `account` may download `path` until `expiresAtMillis`.
    String sign(String path, String account, long expiresAtMillis) {
        String text = encode(account.getBytes(StandardCharsets.UTF_8)) + "." + expiresAtMillis;
        return text + "." + encode(mac(path, text));
    }

    /// The account for which `token` permits the download of `path`; empty if the token is invalid or has
    /// expired.
    Optional<String> verify(String path, String token, long nowMillis) {
        String[] parts = token.split("\\.", -1);
        if (parts.length != 3) return Optional.empty();
        String text = parts[0] + "." + parts[1];
        if (!MessageDigest.isEqual(encode(mac(path, text)).getBytes(StandardCharsets.UTF_8),
                parts[2].getBytes(StandardCharsets.UTF_8)))
            return Optional.empty();
        return Long.parseLong(parts[1]) < nowMillis ? Optional.empty()
                : Optional.of(new String(Base64.getUrlDecoder().decode(parts[0]), StandardCharsets.UTF_8));
    }

    private byte[] mac(String path, String text) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(key);
            return mac.doFinal((path + "\n" + text).getBytes(StandardCharsets.UTF_8));
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private static String encode(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }
}
