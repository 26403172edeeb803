package bios.command;

import bios.CommandFailed;
import bios.coordinator.gateway.ApiKey;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.SecureRandom;
import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ScopeType;

/// `bios keys`: makes, lists and revokes the API keys in a key file. The file has digests only; a running
/// service takes a change within a second.
@Command(name = "keys", mixinStandardHelpOptions = true, synopsisSubcommandLabel = "COMMAND",
        description = "Create, list and revoke the API keys of a key file (see --keys of 'bios up').")
public final class KeysCommand implements Runnable {
    private static final long MOST_LOG_BYTES = 1 << 20;
    @Option(names = "--keys", paramLabel = "FILE", defaultValue = "${env:BIOS_KEYS:-keys}",
            scope = ScopeType.INHERIT, description = "The key file (default: $$BIOS_KEYS, else ./keys).")
    private Path file = Path.of("keys");

    @Override public void run() {
        list();
    }

    @Command(name = "create", mixinStandardHelpOptions = true,
            description = "Make a key and print it: it is shown this once, the file gets its digest.")
    void create(@Parameters(paramLabel = "ACCOUNT", description = "Whose key it is.") String account,
            @Option(names = "--scope", defaultValue = "write", description =
                    "read (lists and downloads), write (all but others' usage and audit), operator"
                    + " (default: ${DEFAULT-VALUE}).") ApiKey.Scope scope) {
        List<ApiKey> keys = new ArrayList<>(Files.exists(file) ? read() : List.of());
        String key = ApiKey.random(new SecureRandom()); // edge: a secret
        String today = LocalDate.now(ZoneOffset.UTC).toString(); // edge: says when
        try {
            keys.add(ApiKey.of(account, key, scope, today));
        } catch (IllegalArgumentException wrong) {
            throw new CommandFailed(wrong.getMessage());
        }
        write(keys);
        record("create", keys.getLast());
        System.out.println(key);
    }

    @Command(name = "list", mixinStandardHelpOptions = true,
            description = "List the keys by their ids, which give nothing away.")
    void list() {
        List<List<String>> rows = read().stream().map(key -> List.of(key.id(), key.account(),
                key.scope().word(), key.created().isEmpty() ? "-" : key.created())).toList();
        Remote.table(List.of("ID", "ACCOUNT", "SCOPE", "CREATED"), rows);
    }

    @Command(name = "revoke", mixinStandardHelpOptions = true,
            description = "Delete a key: within a second it opens nothing any more, nor do its tokens.")
    void revoke(@Parameters(paramLabel = "ID", description = "The id that 'bios keys list' shows.")
            String id) {
        List<ApiKey> keys = read();
        List<ApiKey> left = keys.stream().filter(key -> !key.id().equals(id)).toList();
        if (left.size() == keys.size()) throw new CommandFailed("there is no key " + id + " in " + file);
        if (left.isEmpty())
            throw new CommandFailed(id + " is the last key of " + file + ": a service cannot go on without"
                    + " any; create another one first");
        write(left);
        keys.stream().filter(key -> key.id().equals(id)).forEach(key -> record("revoke", key));
        System.out.println("key " + id + " is revoked");
    }

    /// Adds a line to the log of the file; when it is large, it begins anew and the old one is kept.
    private void record(String what, ApiKey key) {
        Path log = file.resolveSibling(file.getFileName() + ".log");
        String line = Instant.now().truncatedTo(ChronoUnit.SECONDS) + " " // edge: says when
                + System.getProperty("user.name") + " " + what + " " + key.id() + " " + key.account() + " "
                + key.scope().word() + "\n";
        try {
            if (Files.exists(log) && Files.size(log) > MOST_LOG_BYTES)
                Files.move(log, log.resolveSibling(log.getFileName() + ".1"),
                        StandardCopyOption.REPLACE_EXISTING);
            Files.writeString(log, line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException failure) {
            throw new CommandFailed("cannot write " + log + ": " + failure.getMessage());
        }
    }

    private List<ApiKey> read() {
        try {
            return ApiKey.readAll(file.toString(), Files.readAllLines(file));
        } catch (IOException failure) {
            throw new CommandFailed("cannot read " + file + ": " + failure.getMessage());
        } catch (IllegalArgumentException wrong) {
            throw new CommandFailed(wrong.getMessage());
        }
    }

    /// Replaces the file as a whole; keys that were in it as they are become digests.
    private void write(List<ApiKey> keys) {
        var lines = new ArrayList<>(List.of("# API keys of Bios: <account> sha256:<digest> <scope>;"
                + " made by 'bios keys create'"));
        keys.forEach(key -> lines.add(key.line()));
        Path part = file.resolveSibling(file.getFileName() + ".part");
        try {
            Files.deleteIfExists(part);
            if (Files.getFileStore(file.toAbsolutePath().getParent()).supportsFileAttributeView("posix"))
                Files.createFile(part, PosixFilePermissions.asFileAttribute(
                        PosixFilePermissions.fromString("rw-------")));
            Files.write(part, lines);
            Files.move(part, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException failure) {
            throw new CommandFailed("cannot write " + file + ": " + failure.getMessage());
        }
    }
}
