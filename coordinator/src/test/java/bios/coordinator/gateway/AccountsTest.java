package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.TestClient.Answer;
import bios.protocol.run.RunCommand.Reason;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

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

    @Test void aChangeOfTheKeyFileTakesEffectAndAWrongOneDoesNot(@TempDir Path folder) throws Exception {
        Path file = folder.resolve("keys");
        Files.writeString(file, "alice tml-alice-key\n");
        var now = new AtomicLong();
        var accounts = new Accounts.KeyFile(file, now::get);
        Files.writeString(file, "alice tml-alice-key\nbob tml-bob-key-1\n");
        assertEquals(Optional.empty(), accounts.of(Optional.of("tml-bob-key-1")));
        now.addAndGet(1_000_000_000);
        assertEquals(Optional.of("bob"), accounts.of(Optional.of("tml-bob-key-1")));
        Files.writeString(file, "alice and too many words\n");
        now.addAndGet(1_000_000_000);
        assertEquals(Optional.of("alice"), accounts.of(Optional.of("tml-alice-key")));
        Files.writeString(file, "bob tml-bob-key-1\n");
        now.addAndGet(1_000_000_000);
        assertEquals(Optional.empty(), accounts.of(Optional.of("tml-alice-key")));
        Files.delete(file);
        now.addAndGet(1_000_000_000);
        assertEquals(Optional.of("bob"), accounts.of(Optional.of("tml-bob-key-1")));
    }

    @Test void aServiceWithKeysNeedsOne() {
        try (var service = new TestService(TWO, "long-poll = 100 ms")) {
            assertEquals(200, service.get("healthz").status());
            Answer nobody = service.get("training_runs");
            assertEquals(401, nobody.status());
            assertEquals("unauthenticated", nobody.text("error"));
        }
    }

    /// A run that cannot be read does not know its owner: the index does.
    @Test void aDamagedRunIsDamagedForItsOwnerAndUnknownToOthers() {
        try (var service = new TestService(TWO, "long-poll = 100 ms")) {
            service.key = "tml-alice-key";
            service.post("create_session", "{'session_id': '" + TestService.SESSION + "'}");
            String run = service.run(8);
            service.runs.refuse = Reason.DAMAGED;
            Answer mine = service.get("training_runs/" + run);
            assertEquals(List.of(500, "run_damaged"), List.of(mine.status(), mine.text("error")));
            service.key = "tml-bob-key";
            Answer foreign = service.get("training_runs/" + run);
            service.runs.refuse = Reason.NOT_FOUND;
            String missing = run.substring(0, run.length() - 4) + "0000";
            Answer unknown = service.get("training_runs/" + missing);
            assertEquals(List.of(404, "not_found"), List.of(foreign.status(), foreign.text("error")));
            assertEquals(List.of(404, "not_found"), List.of(unknown.status(), unknown.text("error")));
        }
    }
}
