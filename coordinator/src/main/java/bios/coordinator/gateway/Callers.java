package bios.coordinator.gateway;

import bios.coordinator.gateway.Accounts.Caller;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.InstantSource;
import java.util.Base64;
import java.util.Optional;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/// Who sends a request, by its API key or by a token that was exchanged for one: a JWT signed with
/// HMAC-SHA256, which is valid for a while and as long as its key is. All coordinators that have the same
/// secret know each other's tokens.
final class Callers {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String HEADER = encode("{\"alg\":\"HS256\",\"typ\":\"JWT\"}");
    private static final String ISSUER = "bios";

    private final Accounts accounts;
    private final Optional<SecretKeySpec> secret;
    private final Duration age;
    private final InstantSource clock;

    /// @param secret of the tokens; empty: there are none
    /// @param age how long a token is valid
    Callers(Accounts accounts, Optional<String> secret, Duration age, InstantSource clock) {
        this.accounts = accounts;
        this.secret = secret.map(text ->
                new SecretKeySpec(text.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        this.age = age;
        this.clock = clock;
    }

    /// Whether keys are exchanged for tokens.
    boolean givesTokens() {
        return secret.isPresent();
    }

    /// The sender of a key or token; empty if it is unknown.
    Optional<Caller> of(Optional<String> credential) {
        Optional<Caller> known = accounts.caller(credential);
        return known.isPresent() || secret.isEmpty() || credential.isEmpty() ? known
                : ofToken(credential.get());
    }

    private Optional<Caller> ofToken(String token) {
        String[] parts = token.split("\\.", -1);
        if (parts.length != 3 || !parts[0].equals(HEADER)) return Optional.empty();
        byte[] signed = signature(parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII);
        if (!MessageDigest.isEqual(signed, parts[2].getBytes(StandardCharsets.UTF_8)))
            return Optional.empty();
        try {
            JsonNode claims = JSON.readTree(Base64.getUrlDecoder().decode(parts[1]));
            return claims.path("exp").asLong() * 1000 <= clock.millis() ? Optional.empty()
                    : accounts.callerOfKey(claims.path("kid").asText());
        } catch (java.io.IOException | IllegalArgumentException malformed) {
            return Optional.empty();
        }
    }

    /// A token of the caller.
    String token(Caller caller) {
        long now = clock.millis() / 1000;
        try {
            String claims = encode(JSON.writeValueAsString(ApiResponse.object("iss", ISSUER, "sub",
                    caller.account(), "iat", now, "exp", now + age.toSeconds(), "kid", caller.keyId(),
                    "scope", caller.scope().word())));
            return HEADER + "." + claims + "." + signature(HEADER + "." + claims);
        } catch (JsonProcessingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private String signature(String text) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(secret.orElseThrow());
            return Base64.getUrlEncoder().withoutPadding()
                    .encodeToString(mac.doFinal(text.getBytes(StandardCharsets.UTF_8)));
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private static String encode(String text) {
        return Base64.getUrlEncoder().withoutPadding()
                .encodeToString(text.getBytes(StandardCharsets.UTF_8));
    }
}
