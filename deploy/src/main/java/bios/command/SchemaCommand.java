package bios.command;

import bios.CommandFailed;
import bios.persistence.cassandra.CassandraSchema;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.CassandraUnavailable;
import bios.persistence.cassandra.SchemaMismatch;
import com.datastax.oss.driver.api.core.DriverException;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `bios schema`: creates or upgrades the tables in Cassandra.
@Command(name = "schema", mixinStandardHelpOptions = true, description =
        "Create or upgrade Bios's tables in Cassandra; idempotent.")
public final class SchemaCommand implements Callable<Integer> {
    @Option(names = "--cassandra", paramLabel = "HOST[:PORT]", split = ",",
            description = "Nodes of Cassandra (default: bios.storage.cassandra.contact-points).")
    private List<String> cassandra;

    @Option(names = "--keyspace", paramLabel = "NAME", description =
            "Keyspace of the tables (default: bios.storage.cassandra.keyspace, bios).")
    private String keyspace;

    @Option(names = "--replication", paramLabel = "N", description =
            "Copies of each row in the datacenter, read when the keyspace is created; 3 for production "
            + "(default: bios.storage.cassandra.replication, 1).")
    private Integer replication;

    @Option(names = "--datacenter", paramLabel = "NAME", description =
            "Cassandra's datacenter (default: bios.storage.cassandra.local-datacenter, datacenter1).")
    private String datacenter;

    @Option(names = "--config", paramLabel = "FILE", description =
            "Settings over the defaults, such as user and password.")
    private Path config;

    @Option(names = "--check", description = "Only check whether the tables match this program.")
    private boolean check;

    @Override public Integer call() {
        try {
            CassandraSettings settings = CassandraSettings.of(settings());
            if (check) {
                CassandraSchema.check(settings);
                System.out.println("the tables in keyspace " + settings.keyspace() + " are of version "
                        + CassandraSchema.VERSION + ", as this program needs them");
            } else CassandraSchema.create(settings).forEach(System.out::println);
            return 0;
        } catch (CassandraUnavailable | SchemaMismatch | IllegalArgumentException | DriverException failed) {
            throw new CommandFailed(failed.getMessage());
        }
    }

    private Config settings() {
        Map<String, Object> given = new HashMap<>();
        // Shorter than for a node, which may start together with Cassandra, because a person waits for the
        // command.
        given.put("connect-within", "20 s");
        if (cassandra != null) given.put("contact-points", cassandra);
        if (keyspace != null) given.put("keyspace", keyspace);
        if (replication != null) given.put("replication", replication);
        if (datacenter != null) given.put("local-datacenter", datacenter);
        return ConfigFactory.parseMap(given).atPath(CassandraSettings.PATH)
                .withFallback(NodeOptions.settings(config))
                .withFallback(ConfigFactory.load()).resolve();
    }
}
