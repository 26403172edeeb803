package bios.persistence;

import bios.persistence.blob.BlobStore;
import bios.persistence.blob.CassandraBlobStore;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.blob.S3BlobStore;
import bios.persistence.blob.S3Settings;
import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.embedded.DatabaseCompaction;
import bios.persistence.embedded.DatabaseServer;
import bios.persistence.index.CassandraRunIndex;
import bios.persistence.index.JdbcRunIndex;
import bios.persistence.index.StoredRunIndex;
import bios.persistence.journal.CassandraJournal;
import bios.persistence.journal.JdbcJournal;
import bios.persistence.journal.JournalCheck;
import bios.persistence.sampling.CassandraSamplingTaskStore;
import bios.persistence.sampling.JdbcSamplingTaskStore;
import bios.persistence.sampling.SamplingTaskStore;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.sql.SQLException;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The stores of a process; the settings `bios.storage` choose their backends.
public final class Storage implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(Storage.class);

    private static final String SERVE = "bios.storage.embedded.serve";

    /// Where events, snapshots, the run index and sampling tasks are stored.
    public enum JournalBackend {
        /// In the embedded database, for one process.
        EMBEDDED,
        /// In Cassandra, for several processes.
        CASSANDRA
    }

    /// Where blobs are stored.
    private enum BlobBackend { FILE, S3, CASSANDRA }

    private final BlobStore blobs;
    private final StoredRunIndex index;
    private final SamplingTaskStore samplingTasks;
    private final Optional<String> databaseUrl;
    private final List<AutoCloseable> openStores;

    private Storage(BlobStore blobs, StoredRunIndex index, SamplingTaskStore samplingTasks,
            Optional<String> databaseUrl, List<AutoCloseable> openStores) {
        this.databaseUrl = databaseUrl;
        this.blobs = blobs;
        this.index = index;
        this.samplingTasks = samplingTasks;
        this.openStores = openStores;
    }

    /// Adds the settings with which Pekko stores events and snapshots in the journal backend of
    /// `bios.storage`. The block is read from `given` and the defaults. Throws [IllegalArgumentException]
    /// with the name of the setting if a value is invalid.
    public static Config withPekkoPersistence(Config given) {
        Config all = given.withFallback(ConfigFactory.load()).resolve();
        return given.withFallback(switch (journalBackend(all)) {
            case EMBEDDED -> served(all).map(url -> JdbcJournal.config(journalFolder(all), url,
                    all.getString("bios.node.name"))).orElseGet(() -> JdbcJournal.config(journalFolder(all)));
            case CASSANDRA -> {
                CassandraSettings.of(all); // throws if a setting of the block is invalid
                yield CassandraJournal.config();
            }
        });
    }

    /// Where the journal is stored with these settings.
    public static JournalBackend journalBackend(Config resolved) {
        return enumSetting(resolved, "journal", JournalBackend.class);
    }

    /// Whether several processes can use the journal with these settings.
    public static boolean isShared(Config resolved) {
        return journalBackend(resolved) != JournalBackend.EMBEDDED || served(resolved).isPresent()
                || resolved.getBoolean(SERVE);
    }

    /// The address of the embedded database, if another process serves it.
    private static Optional<String> served(Config resolved) {
        return Optional.of(resolved.getString("bios.storage.embedded.url")).filter(url -> !url.isEmpty());
    }

    /// Opens the stores that the settings name, and creates the folders and tables of the embedded stores.
    /// Call it before the actor system starts. Throws [IllegalArgumentException] if a setting is invalid, and
    /// [bios.persistence.embedded.DatabaseInUse], [bios.persistence.journal.JournalLoss],
    /// [bios.persistence.cassandra.CassandraUnavailable],
    /// [bios.persistence.cassandra.SchemaMismatch], [java.io.UncheckedIOException] or [IllegalStateException]
    /// if a store cannot be opened. If it throws, no store stays open.
    ///
    /// @param resolved the settings with all defaults
    public static Storage open(Config resolved) {
        return open(resolved, InstantSource.system());
    }

    static Storage open(Config resolved, InstantSource clock) {
        List<AutoCloseable> openStores = new ArrayList<>();
        try {
            StoredRunIndex index;
            SamplingTaskStore tasks;
            Optional<DatabaseServer> server = Optional.empty();
            if (journalBackend(resolved) == JournalBackend.EMBEDDED && served(resolved).isPresent()) {
                String url = served(resolved).orElseThrow();
                index = closeLater(openStores, JdbcRunIndex.open(url, clock));
                tasks = closeLater(openStores, JdbcSamplingTaskStore.open(url, clock));
            } else if (journalBackend(resolved) == JournalBackend.EMBEDDED) {
                Path journalFolder = journalFolder(resolved);
                JournalCheck.open(folder(resolved));
                index = closeLater(openStores, JdbcRunIndex.open(journalFolder, clock));
                tasks = closeLater(openStores, JdbcSamplingTaskStore.open(journalFolder, clock));
                closeLater(openStores, startCompaction(journalFolder));
                if (resolved.getBoolean(SERVE))
                    server = Optional.of(closeLater(openStores, DatabaseServer.start(journalFolder)));
            } else {
                CassandraSettings settings = CassandraSettings.of(resolved);
                // All stores share this session.
                closeLater(openStores, CassandraConnection.to(settings)).await();
                index = closeLater(openStores, CassandraRunIndex.open(settings, clock));
                tasks = closeLater(openStores, CassandraSamplingTaskStore.open(settings, clock));
            }
            return new Storage(openBlobs(resolved, clock, openStores), index, tasks,
                    server.map(DatabaseServer::url), openStores);
        } catch (RuntimeException failed) {
            closeAll(openStores);
            throw failed;
        }
    }

    private static DatabaseCompaction startCompaction(Path journalFolder) {
        try {
            return DatabaseCompaction.start(journalFolder);
        } catch (SQLException failed) {
            throw new IllegalStateException("the journal in " + journalFolder + " cannot be opened: "
                    + failed.getMessage(), failed);
        }
    }

    private static BlobStore openBlobs(Config resolved, InstantSource clock, List<AutoCloseable> openStores) {
        return switch (enumSetting(resolved, "blobs", BlobBackend.class)) {
            case FILE -> closeLater(openStores, FileBlobStore.open(folder(resolved).resolve("blobs")));
            case S3 -> closeLater(openStores, S3BlobStore.open(S3Settings.of(resolved)));
            case CASSANDRA -> closeLater(openStores,
                    CassandraBlobStore.open(CassandraSettings.of(resolved), clock));
        };
    }

    private static <T extends AutoCloseable> T closeLater(List<AutoCloseable> openStores, T store) {
        openStores.addFirst(store);
        return store;
    }

    /// Adapters, states and other large contents.
    public BlobStore blobs() {
        return blobs;
    }

    /// Deletes what interrupted writes of blobs have left and nobody finishes. Call it from time to time, on
    /// any number of nodes. [java.io.UncheckedIOException] or a [RuntimeException] of the driver if the store
    /// does not answer: the next call goes on.
    public void sweep() {
        if (blobs instanceof CassandraBlobStore chunked) chunked.deleteInterruptedUploads();
    }

    /// The runs and checkpoints of each owner.
    public StoredRunIndex index() {
        return index;
    }

    /// Accepted sampling requests.
    public SamplingTaskStore samplingTasks() {
        return samplingTasks;
    }

    /// The address of the embedded database for other processes, if this one serves it; a secret.
    public Optional<String> databaseUrl() {
        return databaseUrl;
    }

    /// Closes all stores; call it after the actor system has terminated.
    @Override public void close() {
        closeAll(openStores);
    }

    private static void closeAll(List<AutoCloseable> openStores) {
        for (AutoCloseable store : openStores)
            try {
                store.close();
            } catch (Exception failed) {
                LOG.warn("{} could not be closed: {}", store.getClass().getSimpleName(), failed.toString());
            }
        openStores.clear();
    }

    private static Path journalFolder(Config config) {
        return folder(config).resolve("journal");
    }

    /// The folder of the embedded journal and of blobs as files. Throws [IllegalArgumentException] if none is
    /// set.
    public static Path folder(Config config) {
        String configured = config.getString("bios.storage.folder");
        if (!configured.isEmpty()) return Path.of(configured);
        if (config.hasPath("bios.data")) return Path.of(config.getString("bios.data"));
        throw new IllegalArgumentException(
                "bios.storage.folder is empty and bios.data is not set; set one of them to a folder");
    }

    private static <E extends Enum<E>> E enumSetting(Config config, String setting, Class<E> type) {
        String path = "bios.storage." + setting;
        try {
            String value = config.getString(path);
            for (E constant : type.getEnumConstants())
                if (constant.name().equalsIgnoreCase(value)) return constant;
            var names = new ArrayList<String>();
            for (E constant : type.getEnumConstants()) names.add(constant.name().toLowerCase(Locale.ROOT));
            throw new IllegalArgumentException(
                    path + " is '" + value + "'; expected one of " + String.join(", ", names));
        } catch (ConfigException invalid) {
            throw new IllegalArgumentException(invalid.getMessage(), invalid);
        }
    }
}
