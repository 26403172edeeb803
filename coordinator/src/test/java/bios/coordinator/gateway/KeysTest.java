package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.Accounts.Caller;
import bios.coordinator.gateway.TestClient.Answer;
import bios.coordinator.OwnerLimits;
import com.typesafe.config.ConfigFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// API keys: their file has digests only, their scopes are kept, tokens are exchanged for them.
class KeysTest {
    private static final String READ = "tml-read-key";
    private static final String WRITE = "tml-write-key";

    private static String line(String account, String key, ApiKey.Scope scope) {
        return ApiKey.of(account, key, scope, "2026-01-31").line();
    }

    private static Accounts accounts() {
        return Accounts.fromLines("keys", List.of(line("alice", READ, ApiKey.Scope.READ),
                line("alice", WRITE, ApiKey.Scope.WRITE)));
    }

    @Test void aKeyFileHasDigestsOnly() {
        String key = ApiKey.random(new SecureRandom());
        assertTrue(key.matches("tml-[A-Za-z0-9_-]{43}"), key);
        String line = line("alice", key, ApiKey.Scope.OPERATOR);
        assertFalse(line.contains(key), line);
        ApiKey read = ApiKey.readAll("keys", List.of(line)).getFirst();
        assertEquals(line, read.line());
        assertEquals(12, read.id().length());
        var accounts = Accounts.fromLines("keys", List.of(line));
        assertEquals(Optional.of(new Caller("alice", ApiKey.Scope.OPERATOR, read.id())),
                accounts.caller(Optional.of(key)));
        assertEquals(Optional.empty(), accounts.caller(Optional.of(line.split(" ")[1])));
        assertEquals(Optional.empty(), accounts.caller(Optional.of(key.substring(0, 20))));
    }

    @Test void aKeyForReadingChangesNothing(@TempDir Path folder) {
        try (var service = new RealService(folder, accounts(), "long-poll = 1 s")) {
            service.key = WRITE;
            String session = service.post("create_session", "{}").text("session_id");
            Answer made = service.post("create_model", "{'session_id': '" + session
                    + "', 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}");
            assertEquals(200, made.status());
            service.key = READ;
            assertEquals("read", service.get("whoami").text("scope"));
            assertEquals(200, service.result(made).status());
            assertEquals(200, service.get("training_runs/" + made.text("model_id")).status());
            for (Endpoint endpoint : service.endpoints) {
                String path = String.join("/", endpoint.pattern()).replace("*", "x");
                Answer answer = service.send(endpoint.method(), path,
                        "{}".getBytes(StandardCharsets.UTF_8));
                // A signed URL, which only a key for writing gets, stands for a key.
                boolean refused = endpoint.changes() && endpoint.authenticated();
                assertEquals(refused, answer.status() == 403, endpoint.method() + " " + path);
                if (refused) assertEquals("read_only_key",
                        answer.json().path("error").path("code").asText(answer.text("error")));
                assertTrue(endpoint.changes() || !endpoint.method().matches("PUT|DELETE"), path);
            }
        }
    }

    @Test void aTokenIsGoodUntilItExpiresOrItsKeyIsRevoked() {
        var now = new AtomicLong(1_700_000_000_000L);
        Optional<String> secret = Optional.of("a secret of tokens");
        var callers = new Callers(accounts(), secret, Duration.ofHours(1),
                () -> Instant.ofEpochMilli(now.get()));
        Caller alice = callers.of(Optional.of(READ)).orElseThrow();
        String token = callers.token(alice);
        String claims = new String(Base64.getUrlDecoder().decode(token.split("\\.")[1]),
                StandardCharsets.UTF_8);
        assertTrue(claims.contains("\"sub\":\"alice\"") && claims.contains("\"exp\":1700003600"), claims);
        assertEquals(Optional.of(alice), callers.of(Optional.of(token)));
        assertEquals(Optional.empty(), callers.of(Optional.of(token + "x")));
        assertEquals(Optional.empty(), callers.of(Optional.of(token.replaceFirst("\\.[^.]*\\.", ".e30."))));
        var other = new Callers(accounts(), Optional.of("another secret of it"), Duration.ofHours(1),
                () -> Instant.ofEpochMilli(now.get()));
        assertEquals(Optional.empty(), other.of(Optional.of(token)));
        var revoked = new Callers(Accounts.fromLines("keys", List.of(line("alice", WRITE,
                ApiKey.Scope.WRITE))), secret, Duration.ofHours(1), () -> Instant.ofEpochMilli(now.get()));
        assertEquals(Optional.empty(), revoked.of(Optional.of(token)));
        now.addAndGet(3_600_000);
        assertEquals(Optional.empty(), callers.of(Optional.of(token)));
    }

    @Test void aServiceWithASecretGivesTokensToTinkersClients() {
        try (var service = new TestService(accounts(), "token-secret = \"a secret of tokens\"")) {
            assertEquals(401, service.post("auth/token", "{}").status());
            service.key = READ;
            assertTrue(service.post("client/config", "{}").json().path("pjwt_auth_enabled").asBoolean());
            service.key = service.post("auth/token", "{}").text("jwt");
            assertEquals("alice", service.get("whoami").text("account"));
        }
        try (var service = new TestService(accounts(), "")) {
            service.key = READ;
            assertFalse(service.post("client/config", "{}").json().path("pjwt_auth_enabled").asBoolean());
            assertEquals("unsupported", service.post("auth/token", "{}").text("error"));
        }
    }

    @Test void anAccountThatSendsTooManyRequestsWaits() {
        var limits = OwnerLimits.of(ConfigFactory.parseString("requests-per-second = 2, burst = 3,"
                + " owners { \"bob.b\" { burst = 1 } }").withFallback(ConfigFactory.load()
                        .getConfig("bios.gateway.limits")));
        var now = new AtomicLong();
        var rates = new RequestRates(limits, now::get);
        assertEquals(3, allowed(rates, "alice"));
        assertEquals(1, allowed(rates, "bob.b"));
        now.addAndGet(1_000_000_000);
        assertEquals(2, allowed(rates, "alice"));
        now.addAndGet(60_000_000_000L);
        assertEquals(3, allowed(rates, "alice"));
    }

    private static int allowed(RequestRates rates, String account) {
        for (int count = 0;; count++) {
            try {
                rates.count(account);
            } catch (ApiException refused) {
                assertEquals(ErrorCode.RATE_LIMITED, refused.code());
                assertTrue(refused.getMessage().contains("requests-per-second"), refused.getMessage());
                return count;
            }
        }
    }

    @Test void theServiceSaysHowManyRequestsAnAccountMaySend() {
        try (var service = new TestService(accounts(), "limits { requests-per-second = 0.001, burst = 2 }")) {
            service.key = WRITE;
            assertEquals(200, service.get("whoami").status());
            assertEquals(200, service.get("whoami").status());
            Answer refused = service.get("whoami");
            assertEquals(429, refused.status());
            assertEquals("rate_limited", refused.text("error"));
            assertTrue(refused.response().headers().firstValue("retry-after").isPresent());
        }
    }
}
