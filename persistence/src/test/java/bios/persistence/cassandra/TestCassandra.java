package bios.persistence.cassandra;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/// One Cassandra for all tests of this process: started by the first test and stopped with the process.
/// Classes that use it lock it, because their tables are the same.
public final class TestCassandra {
    /// Name of the lock of [org.junit.jupiter.api.parallel.ResourceLock].
    public static final String LOCK = "the Cassandra of all tests";
    private static LocalCassandra shared;
    private static boolean created;

    private TestCassandra() {}

    /// Settings of the shared node and the keyspace of all tests, whose tables are there.
    public static synchronized Config tables(Map<String, Object> more) {
        Config config = config(shared(), "tests", more);
        if (!created) CassandraSchema.create(CassandraSettings.of(config));
        created = true;
        return config;
    }

    /// Settings of the shared node and the keyspace of all tests, whose tables are there.
    public static Config tables() {
        return tables(Map.of());
    }

    /// Settings of a node.
    public static Config config(LocalCassandra node, String keyspace, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("contact-points", List.of(node.contactPoint()));
        settings.put("keyspace", keyspace);
        return ConfigFactory.parseMap(settings).atPath(CassandraSettings.PATH)
                .withFallback(ConfigFactory.load());
    }

    /// The node of all tests, which no test may kill.
    public static synchronized LocalCassandra shared() {
        if (shared == null) {
            Path folder = folder();
            shared = LocalCassandra.start(LocalCassandra.Settings.of(CassandraJars.in(root()), folder));
            LocalCassandra node = shared;
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                node.kill();
                delete(folder);
            }));
        }
        return shared;
    }

    /// A node for one test, which may kill it; the test deletes its folder with [#delete].
    public static LocalCassandra start() {
        return LocalCassandra.start(LocalCassandra.Settings.of(CassandraJars.in(root()), folder()));
    }

    private static Path folder() {
        try {
            return Files.createTempDirectory("bios-cassandra-");
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    /// Deletes a folder with its content.
    public static void delete(Path folder) {
        try (Stream<Path> all = Files.walk(folder)) {
            for (Path file : all.sorted(Comparator.reverseOrder()).toList()) Files.deleteIfExists(file);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    /// The root folder of the project, which contains `mvnw`.
    public static Path root() {
        Path folder = Path.of("").toAbsolutePath();
        while (!Files.exists(folder.resolve("mvnw"))) folder = folder.getParent();
        return folder;
    }
}
