package bios.persistence.cassandra;

import com.datastax.oss.driver.api.core.CqlSession;
import com.datastax.oss.driver.api.core.cql.ResultSet;
import com.datastax.oss.driver.api.core.cql.SimpleStatement;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.stream.Collectors;

/// The tables in Cassandra and their version. Only an explicit command (`bios schema`) creates and changes
/// them: several processes must not change Cassandra's schema at the same time.
public final class CassandraSchema {
    /// The version that this program needs.
    public static final int VERSION = 1;
    private static final Duration DDL_TIMEOUT = Duration.ofMinutes(1);
    private static final String ROW = "SELECT version FROM %s.schema_version WHERE part = 'bios'";

    private static final int GRACE_OF_ONE_SECONDS = 60;
    private static final int GRACE_SECONDS = 86_400;
    /// Cassandra's default.
    private static final int LONG_GRACE_SECONDS = 864_000;
    /// Tables in which a deleted row that a replica returns would be read.
    private static final Set<String> LONG_GRACE = Set.of("snapshots", "blobs");
    private static final String TOMBSTONE_INTERVAL = "tombstone_compaction_interval";

    private CassandraSchema() {}

    /// Creates the keyspace and the tables where they do not exist, and upgrades older tables. Idempotent.
    ///
    /// @return messages for a person that say what was done
    public static List<String> create(CassandraSettings settings) {
        var done = new ArrayList<String>();
        try (CqlSession session = Cql.await(CassandraConnection.connect(settings))) {
            String keyspace = settings.keyspace();
            if (keyspaceExists(session, keyspace)) done.add("keyspace " + keyspace + " exists");
            else {
                run(session, "CREATE KEYSPACE IF NOT EXISTS " + keyspace + " WITH replication = {'class':"
                        + " 'NetworkTopologyStrategy', '" + settings.localDatacenter().replace("'", "''")
                        + "': "
                        + settings.replication() + "}");
                done.add("created keyspace " + keyspace + ", replication " + settings.replication() + " in "
                        + settings.localDatacenter());
            }
            run(session, "CREATE TABLE IF NOT EXISTS " + keyspace
                    + ".schema_version (part text PRIMARY KEY, version int)");
            int found = installedVersion(session, keyspace).orElse(0);
            if (found > VERSION) throw newer(settings, found);
            for (int version = found + 1; version <= VERSION; version++) {
                boolean one = copies(session, keyspace) == 1;
                for (String statement : statements(version))
                    run(session, statement.replace("KEYSPACE", keyspace)
                            .replace("LONG_GRACE", "" + grace(one, LONG_GRACE_SECONDS))
                            .replace("GRACE", "" + grace(one, GRACE_SECONDS)));
                run(session, "INSERT INTO " + keyspace + ".schema_version (part, version) VALUES ('bios', "
                        + version + ")");
                done.add("created the tables of version " + version);
            }
            if (found == VERSION) done.add("the tables have version " + VERSION + ": nothing to do");
            setGrace(session, keyspace).ifPresent(said -> done.addFirst(said));
            return done;
        }
    }

    /// Deletions of events and chunks stay on the disk for a day, those of rows that name chunks for ten, so
    /// that every replica learns of them. Where there is one replica, they go at a compaction after a minute.
    /// What an operator has chosen stays.
    ///
    /// @return a message for a person, if a table was changed
    static Optional<String> setGrace(CqlSession session, String keyspace) {
        boolean one = copies(session, keyspace) == 1;
        boolean changed = false;
        for (var table : session.execute(SimpleStatement.newInstance("SELECT table_name, gc_grace_seconds,"
                + " compaction FROM system_schema.tables WHERE keyspace_name = ?", keyspace))) {
            int several = LONG_GRACE.contains(table.getString("table_name"))
                    ? LONG_GRACE_SECONDS : GRACE_SECONDS;
            int grace = grace(one, several);
            if (table.getInt("gc_grace_seconds") != grace(!one, several)) continue;
            var compaction = new TreeMap<>(table.getMap("compaction", String.class, String.class));
            compaction.computeIfPresent(TOMBSTONE_INTERVAL, (_, _) -> String.valueOf(grace));
            String options = compaction.entrySet().stream().map(option ->
                    "'" + option.getKey() + "': '" + option.getValue() + "'")
                    .collect(Collectors.joining(", "));
            run(session, "ALTER TABLE " + keyspace + "." + table.getString("table_name")
                    + " WITH gc_grace_seconds = " + grace + " AND compaction = {" + options + "}");
            changed = true;
        }
        return changed ? Optional.of("deletions stay on the disk for "
                + (one ? "a minute" : "one or ten days") + " now") : Optional.empty();
    }

    private static int grace(boolean oneReplica, int several) {
        return oneReplica ? GRACE_OF_ONE_SECONDS : several;
    }

    private static int copies(CqlSession session, String keyspace) {
        return session.execute(SimpleStatement.newInstance("SELECT replication FROM system_schema.keyspaces"
                + " WHERE keyspace_name = ?", keyspace)).one()
                .getMap("replication", String.class, String.class).entrySet().stream()
                .filter(entry -> !entry.getKey().equals("class"))
                .mapToInt(entry -> Integer.parseInt(entry.getValue())).sum();
    }

    /// Throws [SchemaMismatch] unless the tables have this program's version.
    public static void check(CassandraSettings settings) {
        try (CqlSession session = Cql.await(CassandraConnection.connect(settings))) {
            Cql.await(check(new Cql(session, settings)));
        }
    }

    /// Completes if the tables have this program's version, else fails with [SchemaMismatch].
    static CompletionStage<Void> check(Cql cql) {
        CassandraSettings settings = cql.settings();
        return cql.retries().call(() -> cql.session().executeAsync(SimpleStatement.newInstance(
                "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name ="
                + " 'schema_version'", settings.keyspace())))
                .thenCompose(tables -> tables.one() == null ? CompletableFuture.<Integer>completedFuture(0)
                        : cql.execute(ROW.formatted(settings.keyspace())).thenApply(rows ->
                                Cql.firstRow(rows).map(row -> row.getInt("version")).orElse(0)))
                .thenAccept(found -> {
                    if (found > VERSION) throw newer(settings, found);
                    if (found == 0) throw new SchemaMismatch("keyspace " + settings.keyspace() + " of "
                            + settings.contactPoints().getFirst() + " has no tables of Bios; create them with"
                            + " `"
                            + settings.schemaCommand() + " --replication N`");
                    if (found < VERSION) throw new SchemaMismatch("the tables in keyspace "
                            + settings.keyspace() + " have version " + found + ", this program needs "
                            + VERSION + "; upgrade them with `" + settings.schemaCommand() + "`");
                });
    }

    private static SchemaMismatch newer(CassandraSettings settings, int found) {
        return new SchemaMismatch("the tables in keyspace " + settings.keyspace() + " have version " + found
                + ", this program knows up to " + VERSION + "; run a newer Bios (`" + settings.schemaCommand()
                + " --check` shows the version)");
    }

    private static boolean keyspaceExists(CqlSession session, String keyspace) {
        return session.execute(SimpleStatement.newInstance(
                "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?", keyspace))
                .one() != null;
    }

    private static OptionalInt installedVersion(CqlSession session, String keyspace) {
        var row = run(session, ROW.formatted(keyspace)).one();
        return row == null ? OptionalInt.empty() : OptionalInt.of(row.getInt("version"));
    }

    private static ResultSet run(CqlSession session, String statement) {
        return session.execute(SimpleStatement.newInstance(statement).setTimeout(DDL_TIMEOUT));
    }

    private static List<String> statements(int version) {
        String name = "cql/schema-" + version + ".cql";
        try (InputStream in = CassandraSchema.class.getClassLoader().getResourceAsStream(name)) {
            String text = new String(in.readAllBytes(), StandardCharsets.UTF_8).lines()
                    .filter(line -> !line.startsWith("--")).collect(Collectors.joining("\n"));
            return List.of(text.strip().split(";\\s*"));
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
