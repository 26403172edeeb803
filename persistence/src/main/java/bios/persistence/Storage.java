package bios.persistence;

import bios.persistence.blob.BlobStore;
import bios.persistence.blob.CassandraBlobStore;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.blob.S3BlobStore;
import bios.persistence.blob.S3Settings;
import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.index.CassandraRunIndex;
import bios.persistence.index.JdbcRunIndex;
import bios.persistence.index.RunIndex;
import bios.persistence.journal.CassandraJournal;
import bios.persistence.journal.JdbcJournal;
import bios.persistence.sampling.CassandraSamplingTaskStore;
import bios.persistence.sampling.JdbcSamplingTaskStore;
import bios.persistence.sampling.SamplingTaskStore;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The stores of a process, opened as the settings `bios.storage` say.
public final class Storage implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(Storage.class);

    /// Where events, snapshots, the run index and sampling tasks are stored.
    public enum Journal {
        /// In the embedded database, for one process.
        EMBEDDED,
        /// In Cassandra, for several processes.
        CASSANDRA
    }

    private enum Blobs { FILE, S3, CASSANDRA }

    private final BlobStore blobs;
    private final RunIndex index;
    private final SamplingTaskStore samplingTasks;
    private final List<AutoCloseable> open;

    private Storage(BlobStore blobs, RunIndex index, SamplingTaskStore samplingTasks,
            List<AutoCloseable> open) {
        this.blobs = blobs;
        this.index = index;
        this.samplingTasks = samplingTasks;
        this.open = open;
    }

    /// `given` with the settings that make Pekko store events and snapshots where `bios.storage` says, which
    /// is read from `given` and the defaults. [IllegalArgumentException] names a setting that is wrong.
    public static Config pekko(Config given) {
        Config all = given.withFallback(ConfigFactory.load()).resolve();
        return given.withFallback(switch (journal(all)) {
            case EMBEDDED -> JdbcJournal.config(journalFolder(all));
            case CASSANDRA -> {
                CassandraSettings.of(all);
                yield CassandraJournal.config();
            }
        });
    }

    /// Where the journal is stored with these settings.
    public static Journal journal(Config resolved) {
        return choice(resolved, "journal", Journal.class);
    }

    /// Opens the stores that the settings name; creates folders and tables of embedded ones. Call it before
    /// the actor system starts. The exception tells which setting or store is at fault:
    /// [IllegalArgumentException] a setting, [bios.persistence.embedded.DatabaseInUse],
    /// [bios.persistence.cassandra.CassandraUnavailable], [bios.persistence.cassandra.SchemaMismatch],
    /// [java.io.UncheckedIOException] or [IllegalStateException] a store.
    ///
    /// @param resolved the settings with all defaults
    public static Storage open(Config resolved) {
        return open(resolved, InstantSource.system());
    }

    static Storage open(Config resolved, InstantSource clock) {
        List<AutoCloseable> open = new ArrayList<>();
        try {
            RunIndex index;
            SamplingTaskStore tasks;
            if (journal(resolved) == Journal.EMBEDDED) {
                Path folder = journalFolder(resolved);
                EmbeddedDatabase.createSchema(folder);
                index = opened(open, JdbcRunIndex.open(folder, clock));
                tasks = opened(open, JdbcSamplingTaskStore.open(folder, clock));
            } else {
                CassandraSettings settings = CassandraSettings.of(resolved);
                // All stores share this session.
                opened(open, CassandraConnection.to(settings)).await();
                index = opened(open, CassandraRunIndex.open(settings, clock));
                tasks = opened(open, CassandraSamplingTaskStore.open(settings, clock));
            }
            return new Storage(openBlobs(resolved, clock, open), index, tasks, open);
        } catch (RuntimeException failed) {
            closeAll(open);
            throw failed;
        }
    }

    private static BlobStore openBlobs(Config resolved, InstantSource clock, List<AutoCloseable> open) {
        return switch (choice(resolved, "blobs", Blobs.class)) {
            case FILE -> opened(open, FileBlobStore.open(folder(resolved).resolve("blobs")));
            case S3 -> opened(open, S3BlobStore.open(S3Settings.of(resolved)));
            case CASSANDRA -> {
                var store = opened(open, CassandraBlobStore.open(CassandraSettings.of(resolved), clock));
                Thread.ofVirtual().name("blob-upload-cleaner").start(() -> {
                    try {
                        store.deleteInterruptedUploads();
                    } catch (RuntimeException failed) {
                        LOG.warn("remains of interrupted uploads are deleted at the next start: {}",
                                failed.getMessage());
                    }
                });
                yield store;
            }
        };
    }

    private static <T extends AutoCloseable> T opened(List<AutoCloseable> open, T store) {
        open.addFirst(store);
        return store;
    }

    /// Adapters, states and other large contents.
    public BlobStore blobs() {
        return blobs;
    }

    /// The runs and checkpoints of each owner.
    public RunIndex index() {
        return index;
    }

    /// Accepted sampling requests.
    public SamplingTaskStore samplingTasks() {
        return samplingTasks;
    }

    /// Closes all stores; call it after the actor system has terminated.
    @Override public void close() {
        closeAll(open);
    }

    private static void closeAll(List<AutoCloseable> open) {
        for (AutoCloseable store : open)
            try {
                store.close();
            } catch (Exception failed) {
                LOG.warn("{} could not be closed: {}", store.getClass().getSimpleName(), failed.toString());
            }
        open.clear();
    }

    private static Path journalFolder(Config config) {
        return folder(config).resolve("journal");
    }

    private static Path folder(Config config) {
        String own = config.getString("bios.storage.folder");
        if (!own.isEmpty()) return Path.of(own);
        if (config.hasPath("bios.data")) return Path.of(config.getString("bios.data"));
        throw new IllegalArgumentException(
                "bios.storage.folder is empty and bios.data is not set; name a folder");
    }

    private static <E extends Enum<E>> E choice(Config config, String setting, Class<E> type) {
        String path = "bios.storage." + setting;
        try {
            String value = config.getString(path);
            for (E one : type.getEnumConstants())
                if (one.name().equalsIgnoreCase(value)) return one;
            var names = new ArrayList<String>();
            for (E one : type.getEnumConstants()) names.add(one.name().toLowerCase(Locale.ROOT));
            throw new IllegalArgumentException(
                    path + " is '" + value + "'; choose " + String.join(", ", names));
        } catch (ConfigException wrong) {
            throw new IllegalArgumentException(wrong.getMessage(), wrong);
        }
    }
}
