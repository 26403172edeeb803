package bios.command;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.Accounts;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/// `bios keys` on a key file.
class KeysCommandTest {
    @TempDir private Path folder;
    private int status;

    private String keys(String... words) {
        var line = new CommandLine(new KeysCommand()).setCaseInsensitiveEnumValuesAllowed(true);
        PrintStream before = System.out;
        var printed = new ByteArrayOutputStream();
        System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
        try {
            var all = new java.util.ArrayList<>(List.of(words));
            all.addAll(List.of("--keys", folder.resolve("keys").toString()));
            status = line.execute(all.toArray(String[]::new));
        } finally {
            System.setOut(before);
        }
        return printed.toString(StandardCharsets.UTF_8).strip();
    }

    @Test void aKeyIsCreatedShownOnceListedAndRevoked() throws Exception {
        Path file = folder.resolve("keys");
        Files.writeString(file, "old tml-written-by-hand\n");
        String key = keys("create", "alice", "--scope", "read");
        assertEquals(0, status);
        assertTrue(key.matches("tml-[A-Za-z0-9_-]{43}"), key);
        String content = Files.readString(file);
        assertFalse(content.contains(key) || content.contains("tml-written-by-hand"), content);
        Accounts accounts = Accounts.fromFile(file);
        assertEquals(Optional.of("alice"), accounts.of(Optional.of(key)));
        assertEquals(Optional.of("old"), accounts.of(Optional.of("tml-written-by-hand")));
        String list = keys("list");
        assertTrue(list.contains("alice") && list.contains("read") && !list.contains(key), list);
        String id = list.lines().filter(l -> l.contains("alice")).findFirst().orElseThrow().split(" ")[0];
        keys("revoke", id);
        assertEquals(0, status);
        assertEquals(Optional.empty(), Accounts.fromFile(file).of(Optional.of(key)));
        keys("revoke", id);
        assertEquals(1, status);
        String log = Files.readString(folder.resolve("keys.log"));
        assertTrue(log.contains("create " + id + " alice read") && log.contains("revoke " + id), log);
    }
}
