package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/// API keys and their accounts.
class AccountsTest {
    private static final Accounts TWO = Accounts.fromLines("keys",
            List.of("# two people", "", "alice tml-alice-key", "bob  tml-bob-key", "alice tml-alice-second"));

    @Test void aKeyGivesItsAccount() {
        assertEquals(Optional.of("alice"), TWO.of(Optional.of("tml-alice-key")));
        assertEquals(Optional.of("alice"), TWO.of(Optional.of("tml-alice-second")));
        assertEquals(Optional.of("bob"), TWO.of(Optional.of("tml-bob-key")));
        assertEquals(Optional.empty(), TWO.of(Optional.of("tml-bob-key ")));
        assertEquals(Optional.empty(), TWO.of(Optional.of("")));
        assertEquals(Optional.empty(), TWO.of(Optional.empty()));
        assertEquals(Optional.of("default"), Accounts.open().of(Optional.empty()));
    }

    @Test void aMalformedKeyFileIsRefusedWithTheLineAndWithoutTheKey() {
        for (String line : List.of("alice", "alice two keys", "al/ice tml-alice-key", "alice short")) {
            var bad = assertThrows(IllegalArgumentException.class,
                    () -> Accounts.fromLines("keys", List.of("ok tml-okay-key", line)));
            assertTrue(bad.getMessage().startsWith("keys, line 2: "), bad.getMessage());
            assertFalse(bad.getMessage().contains("tml-"), bad.getMessage());
        }
        assertThrows(IllegalArgumentException.class,
                () -> Accounts.fromLines("keys", List.of("a tml-same-key", "b tml-same-key")));
        assertThrows(IllegalArgumentException.class, () -> Accounts.fromLines("keys", List.of("# nothing")));
    }

    @Test void aServiceWithKeysNeedsOne() {
        try (var service = new TestService(TWO, "long-poll = 100 ms")) {
            assertEquals(200, service.get("healthz").status());
            Answer nobody = service.get("training_runs");
            assertEquals(401, nobody.status());
            assertEquals("unauthenticated", nobody.text("error"));
        }
    }
}
