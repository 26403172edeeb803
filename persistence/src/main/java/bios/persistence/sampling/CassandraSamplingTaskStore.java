package bios.persistence.sampling;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import com.datastax.oss.driver.api.core.DriverException;
import java.nio.ByteBuffer;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;

/// Sampling tasks in Cassandra; rows expire after `bios.storage.cassandra.sampling-task-age`.
public final class CassandraSamplingTaskStore implements SamplingTaskStore, AutoCloseable {
    private static final String PUT = """
            INSERT INTO KEYSPACE.sampling_tasks (id, owner, body, stored) VALUES (?, ?, ?, ?) USING TTL ?""";
    private static final String FIND =
            "SELECT owner, body, stored FROM KEYSPACE.sampling_tasks WHERE id = ?";
    private static final String REMOVE = "DELETE FROM KEYSPACE.sampling_tasks WHERE id = ?";
    /// Far below the requests that the driver sends over one connection at a time.
    private static final int DELETIONS_IN_FLIGHT = 64;
    private final CassandraSettings settings;
    private final CassandraConnection connection;
    private final InstantSource clock;

    private CassandraSamplingTaskStore(CassandraSettings settings, InstantSource clock) {
        this.settings = settings;
        this.connection = CassandraConnection.to(settings);
        this.clock = clock;
    }

    /// Opens the store; waits for Cassandra, whose schema must exist.
    public static CassandraSamplingTaskStore open(CassandraSettings settings, InstantSource clock) {
        var tasks = new CassandraSamplingTaskStore(settings, clock);
        try {
            tasks.connection.await();
        } catch (RuntimeException failed) {
            tasks.close();
            throw failed;
        }
        return tasks;
    }

    @Override public void close() {
        connection.close();
    }

    @Override public void put(String id, String owner, byte[] body) {
        if (body.length > settings.maxRowBytes())
            throw new IllegalArgumentException("sampling task " + id + " takes " + body.length
                    + " bytes, more than the " + settings.maxRowBytes()
                    + " of bios.storage.cassandra.max-row-bytes");
        await("write", connection.await().execute(PUT, id, owner, ByteBuffer.wrap(body), clock.millis(),
                Math.toIntExact(settings.samplingTaskAge().toSeconds())));
    }

    @Override public Optional<Task> find(String id) {
        return Cql.firstRow(await("read", connection.await().execute(FIND, id))).map(row -> {
            ByteBuffer body = row.getByteBuffer("body");
            byte[] bytes = new byte[body.remaining()];
            body.get(bytes);
            return new Task(id, row.getString("owner"), bytes, row.getLong("stored"));
        });
    }

    @Override public void remove(List<String> ids) {
        Cql cql = connection.await();
        for (int from = 0; from < ids.size(); from += DELETIONS_IN_FLIGHT)
            ids.subList(from, Math.min(from + DELETIONS_IN_FLIGHT, ids.size())).stream()
                    .map(id -> cql.execute(REMOVE, id)).toList()
                    .forEach(deleted -> await("delete from", deleted));
    }

    /// Does nothing: each row has a time to live.
    @Override public int deleteOlderThan(long ageMillis) {
        return 0;
    }

    private static <T> T await(String what, CompletionStage<T> stage) {
        try {
            return Cql.await(stage);
        } catch (DriverException failed) {
            throw new IllegalStateException("cannot " + what + " the sampling tasks: " + failed.getMessage(),
                    failed);
        }
    }
}
