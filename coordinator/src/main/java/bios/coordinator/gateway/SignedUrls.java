package bios.coordinator.gateway;

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.Optional;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/// URLs that serve one path without a key, with the rights of the account that asked for them, until they
/// expire. Their token is `<account>.<expiry>.<HMAC-SHA256>`, the parts in base64url.
final class SignedUrls {
    private final SecretKeySpec key;
    private final PublicUrl publicUrl;

    SignedUrls(byte[] secret, PublicUrl publicUrl) {
        this.key = new SecretKeySpec(secret, "HmacSHA256");
        this.publicUrl = publicUrl;
    }

    /// The URL of `path`, which is below `/api/v1`, for the account of the caller.
    String url(ApiRequest call, String path, long expiresAtMillis) {
        return publicUrl.root(call.headers().getOrDefault("host", "")) + "/api/v1/" + path + "?token="
                + sign(path, call.account(), expiresAtMillis);
    }

    /// The account for which the token of a request permits `path`.
    ///
    /// @param remedy what a caller does whose token does not permit it
    String account(ApiRequest call, String path, long nowMillis, String remedy) {
        return verify(path, call.query().getOrDefault("token", ""), nowMillis).orElseThrow(() ->
                new ApiException(ErrorCode.LINK_EXPIRED, "the link is invalid or has expired; " + remedy));
    }

    /// A token with which `account` may use `path` until `expiresAtMillis`.
    String sign(String path, String account, long expiresAtMillis) {
        String text = encode(account.getBytes(StandardCharsets.UTF_8)) + "." + expiresAtMillis;
        return text + "." + encode(mac(path, text));
    }

    /// The account for which `token` permits `path`; empty if the token is invalid or has expired.
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
