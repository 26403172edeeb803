package bios.persistence.cassandra;

import com.datastax.oss.driver.api.core.CqlSession;
import com.datastax.oss.driver.api.core.config.DefaultDriverOption;
import com.datastax.oss.driver.api.core.config.DriverConfigLoader;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// A reference to a session with Cassandra. All connections of one process with the same settings share one
/// session, which is closed with the last of them.
public final class CassandraConnection implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(CassandraConnection.class);
    private static final Map<CassandraSettings, Shared> SHARED = new HashMap<>();
    private static final Duration RECONNECT_FIRST = Duration.ofMillis(200);
    private static final Duration RECONNECT_LAST = Duration.ofSeconds(5);
    private static final int LOG_INTERVAL_SECONDS = 10;

    private final CassandraSettings settings;
    private final Shared shared;
    private boolean closed;

    private CassandraConnection(CassandraSettings settings, Shared shared) {
        this.settings = settings;
        this.shared = shared;
    }

    private static final class Shared {
        private final CompletableFuture<CqlSession> connecting;
        private final CompletableFuture<Cql> ready;
        private int references;

        Shared(CassandraSettings settings) {
            connecting = connect(settings);
            ready = connecting.thenCompose(session -> {
                var cql = new Cql(session, settings);
                return CassandraSchema.check(cql).thenApply(_ -> cql);
            });
        }
    }

    /// Adds a reference to the session for `settings`; the first one starts to connect.
    public static CassandraConnection to(CassandraSettings settings) {
        synchronized (SHARED) {
            Shared shared = SHARED.get(settings);
            // A session that could not be opened is not reused.
            if (shared == null || shared.ready.isCompletedExceptionally()) {
                shared = new Shared(settings);
                SHARED.put(settings, shared);
            }
            shared.references++;
            return new CassandraConnection(settings, shared);
        }
    }

    /// The session, when it is connected and the schema has this program's version. Fails with
    /// [CassandraUnavailable] or [SchemaMismatch].
    public CompletionStage<Cql> ready() {
        return shared.ready;
    }

    /// Waits for [#ready].
    public Cql await() {
        return await(shared.ready);
    }

    static <T> T await(CompletionStage<T> stage) {
        try {
            return stage.toCompletableFuture().get(); // edge: callers run on threads that may block
        } catch (ExecutionException failed) {
            if (unwrap(failed) instanceof RuntimeException known) throw known;
            throw new IllegalStateException(unwrap(failed));
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while waiting for Cassandra");
        }
    }

    static Throwable unwrap(Throwable failure) {
        Throwable cause = failure;
        while ((cause instanceof CompletionException || cause instanceof ExecutionException)
                && cause.getCause() != null) cause = cause.getCause();
        return cause;
    }

    @Override public void close() {
        synchronized (SHARED) {
            if (closed) return;
            closed = true;
            if (--shared.references > 0) return;
            SHARED.remove(settings, shared);
        }
        if (shared.connecting.isDone() && !shared.connecting.isCompletedExceptionally())
            shared.connecting.join().closeAsync(); // edge: completed before
        else shared.connecting.cancel(true);
    }

    /// Opens a session that is not shared and whose schema is not checked; waits for Cassandra at most
    /// [CassandraSettings#connectWithin].
    static CompletableFuture<CqlSession> connect(CassandraSettings settings) {
        // Wrong settings are thrown here; an unknown host is not one of them.
        CompletionStage<CqlSession> building;
        try {
            var builder = CqlSession.builder().withConfigLoader(options(settings))
                    .withLocalDatacenter(settings.localDatacenter())
                    .addContactPoints(settings.addresses());
            if (!settings.user().isEmpty())
                builder = builder.withAuthCredentials(settings.user(), settings.password());
            building = builder.buildAsync();
        } catch (RuntimeException wrong) {
            return CompletableFuture.failedFuture(unavailable(settings, wrong));
        }
        var session = building.toCompletableFuture();
        var stopLogging = new CompletableFuture<Void>();
        logWaiting(settings, session, stopLogging, LOG_INTERVAL_SECONDS);
        return session.copy().orTimeout(settings.connectWithin().toMillis(), TimeUnit.MILLISECONDS)
                .handle((connected, failure) -> {
                    stopLogging.complete(null);
                    if (failure == null) return connected;
                    // Closes a session that is opened after the timeout.
                    session.cancel(true);
                    session.thenAccept(CqlSession::closeAsync);
                    throw unavailable(settings, failure instanceof TimeoutException
                            ? null : unwrap(failure));
                });
    }

    private static CassandraUnavailable unavailable(CassandraSettings settings, Throwable failure) {
        return new CassandraUnavailable(settings, failure);
    }

    private static void logWaiting(CassandraSettings settings, CompletableFuture<CqlSession> session,
            CompletableFuture<Void> stop, int waited) {
        CompletableFuture.delayedExecutor(LOG_INTERVAL_SECONDS, TimeUnit.SECONDS).execute(() -> {
            if (session.isDone() || stop.isDone()) return;
            LOG.info("waiting for {}: no answer for {} s, giving up after {} s", settings, waited,
                    settings.connectWithin().toSeconds());
            logWaiting(settings, session, stop, waited + LOG_INTERVAL_SECONDS);
        });
    }

    private static DriverConfigLoader options(CassandraSettings settings) {
        return DriverConfigLoader.programmaticBuilder(CqlSession.class.getClassLoader())
                .withDuration(DefaultDriverOption.REQUEST_TIMEOUT, settings.requestTimeout())
                .withDuration(DefaultDriverOption.CONNECTION_INIT_QUERY_TIMEOUT, settings.requestTimeout())
                .withDuration(DefaultDriverOption.CONTROL_CONNECTION_TIMEOUT, settings.requestTimeout())
                .withDuration(DefaultDriverOption.METADATA_SCHEMA_REQUEST_TIMEOUT, settings.requestTimeout())
                .withBoolean(DefaultDriverOption.RECONNECT_ON_INIT, true)
                .withDuration(DefaultDriverOption.RECONNECTION_BASE_DELAY, RECONNECT_FIRST)
                .withDuration(DefaultDriverOption.RECONNECTION_MAX_DELAY, RECONNECT_LAST)
                .withString(DefaultDriverOption.REQUEST_CONSISTENCY, settings.consistency())
                .withString(DefaultDriverOption.REQUEST_SERIAL_CONSISTENCY, settings.serialConsistency())
                // The driver knows the replicas of our tables and sends requests to them directly.
                .withStringList(DefaultDriverOption.METADATA_SCHEMA_REFRESHED_KEYSPACES,
                        List.of(settings.keyspace()))
                .withBoolean(DefaultDriverOption.TIMESTAMP_GENERATOR_FORCE_JAVA_CLOCK, true)
                .withBoolean(DefaultDriverOption.REQUEST_LOG_WARNINGS, false)
                .withBoolean(DefaultDriverOption.METADATA_SCHEMA_ENABLED, true)
                .build();
    }
}
