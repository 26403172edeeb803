package bios.persistence.cassandra;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.regex.Pattern;

/// Where a Cassandra is and how it is used: `bios.storage.cassandra`.
///
/// @param contactPoints `HOST` or `HOST:PORT` of some nodes
/// @param localDatacenter the datacenter whose nodes are used
/// @param user empty: no authentication
/// @param requestTimeout of one request
/// @param connectWithin how long a start waits for a Cassandra that does not answer yet
/// @param retryFor how long a request is retried whose outcome is unknown or that reached no node
/// @param consistency of reads and writes, `LOCAL_QUORUM` or `QUORUM`
/// @param serialConsistency of lightweight transactions, `LOCAL_SERIAL` or `SERIAL`
/// @param replication copies of each row in the datacenter; read when the schema is created
/// @param maxRowBytes largest atomic write or sampling task, bytes
/// @param replayRows rows of one page while an entity recovers
/// @param samplingTaskAge sampling tasks older than this are deleted
public record CassandraSettings(List<String> contactPoints, String localDatacenter, String keyspace,
        String user, String password, Duration requestTimeout, Duration connectWithin, Duration retryFor,
        String consistency, String serialConsistency, int replication, int maxRowBytes, int replayRows,
        Duration samplingTaskAge) {
    /// Their path in the configuration.
    public static final String PATH = "bios.storage.cassandra";
    /// Cassandra's default port.
    public static final int DEFAULT_PORT = 9042;
    private static final Pattern KEYSPACE = Pattern.compile("[a-z][a-z0-9_]{0,47}");

    public CassandraSettings {
        contactPoints = List.copyOf(contactPoints);
        if (contactPoints.isEmpty())
            throw invalidSetting("contact-points", "is empty; name at least one HOST:PORT");
        contactPoints.forEach(CassandraSettings::address);
        if (!KEYSPACE.matcher(keyspace).matches())
            throw invalidSetting("keyspace", "'" + keyspace
            + "' is not a name of lower-case letters, digits and _");
        if (!List.of("LOCAL_QUORUM", "QUORUM").contains(consistency))
            throw invalidSetting("consistency", "is '" + consistency + "'; expected LOCAL_QUORUM or QUORUM");
        if (!List.of("LOCAL_SERIAL", "SERIAL").contains(serialConsistency))
            throw invalidSetting("serial-consistency",
                    "is '" + serialConsistency + "'; expected LOCAL_SERIAL or SERIAL");
        if (replication < 1) throw invalidSetting("replication", "is " + replication + "; at least 1");
        if (replayRows < 1) throw invalidSetting("replay-rows", "is " + replayRows + "; at least 1");
    }

    /// Reads the settings from a complete configuration; throws [IllegalArgumentException] with the name of
    /// an invalid setting.
    public static CassandraSettings of(Config config) {
        try {
            Config c = config.getConfig(PATH);
            return new CassandraSettings(c.getStringList("contact-points"), c.getString("local-datacenter"),
                    c.getString("keyspace"), c.getString("user"), c.getString("password"),
                    c.getDuration("request-timeout"), c.getDuration("connect-within"),
                    c.getDuration("retry-for"), c.getString("consistency").toUpperCase(Locale.ROOT),
                    c.getString("serial-consistency").toUpperCase(Locale.ROOT), c.getInt("replication"),
                    Math.toIntExact(c.getBytes("max-row-bytes")), c.getInt("replay-rows"),
                    c.getDuration("sampling-task-age"));
        } catch (ConfigException invalid) {
            throw new IllegalArgumentException(invalid.getMessage(), invalid);
        }
    }

    /// Unresolved addresses of the contact points.
    List<InetSocketAddress> addresses() {
        return contactPoints.stream().map(CassandraSettings::address).toList();
    }

    private static InetSocketAddress address(String point) {
        int colon = point.lastIndexOf(':');
        try {
            return colon < 0 ? new InetSocketAddress(point, DEFAULT_PORT)
                    : new InetSocketAddress(
                            point.substring(0, colon), Integer.parseInt(point.substring(colon + 1)));
        } catch (IllegalArgumentException _) {
            throw invalidSetting("contact-points", "'" + point + "' is not HOST or HOST:PORT");
        }
    }

    private static IllegalArgumentException invalidSetting(String setting, String problem) {
        return new IllegalArgumentException(PATH + "." + setting + " " + problem);
    }

    /// The command that creates the schema for these settings, for messages.
    String schemaCommand() {
        var words = new ArrayList<>(List.of("bios", "schema", "--cassandra", contactPoints.getFirst()));
        if (!keyspace.equals("bios")) words.addAll(List.of("--keyspace", keyspace));
        return String.join(" ", words);
    }

    /// Without the password.
    @Override public String toString() {
        return "Cassandra at " + String.join(", ", contactPoints) + ", keyspace " + keyspace;
    }
}
