package bios.persistence.index;

import bios.persistence.cassandra.CassandraConnection;
import bios.persistence.cassandra.CassandraSettings;
import bios.persistence.cassandra.Cql;
import bios.persistence.cassandra.Cql.BoundQuery;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunId;
import com.datastax.oss.driver.api.core.DriverException;
import com.datastax.oss.driver.api.core.cql.AsyncResultSet;
import com.datastax.oss.driver.api.core.cql.Row;
import java.nio.ByteBuffer;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import java.util.function.Predicate;

/// The run index in Cassandra: a partition for each owner, with a row for each run (place -1) and for each of
/// its checkpoints. The rows of a run are written with a timestamp of twice the run's version, in one batch
/// with a deletion whose timestamp is one less. So a newer version replaces an older one and never the
/// reverse, in whatever order they arrive. Of two writes of the same version either may stay.
public final class CassandraRunIndex implements StoredRunIndex {
    private static final int RUN = -1;
    private static final String OWNER = "INSERT INTO KEYSPACE.run_owner (run, owner) VALUES (?, ?)";
    private static final String FIND_OWNER = "SELECT owner FROM KEYSPACE.run_owner WHERE run = ?";
    private static final String DELETE_OWNER = "DELETE FROM KEYSPACE.run_owner WHERE run = ?";
    private static final String CLEAR =
            "DELETE FROM KEYSPACE.run_index USING TIMESTAMP ? WHERE owner = ? AND run = ?";
    private static final String PUT = """
            INSERT INTO KEYSPACE.run_index (owner, run, place, created, expires, version, manifest, body)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?""";
    private static final String VERSION =
            "SELECT version FROM KEYSPACE.run_index WHERE owner = ? AND run = ? AND place = -1";
    private static final String NAMES =
            "SELECT run, place, created, expires FROM KEYSPACE.run_index WHERE owner = ?";
    private static final String EXPIRIES = "SELECT run, expires FROM KEYSPACE.run_index";
    private static final String BODY = """
            SELECT manifest, body FROM KEYSPACE.run_index WHERE owner = ? AND run = ? AND place = ?""";
    private static final Comparator<Name> NEWEST_FIRST = Comparator.comparingLong(Name::created)
            .thenComparing(Name::run).thenComparingInt(Name::place).reversed();

    private final CassandraConnection connection;
    private final InstantSource clock;

    private record Name(String run, int place, long created, long expires) {}

    private CassandraRunIndex(CassandraSettings settings, InstantSource clock) {
        this.connection = CassandraConnection.to(settings);
        this.clock = clock;
    }

    /// Opens the index; waits for Cassandra, whose schema must exist.
    public static CassandraRunIndex open(CassandraSettings settings, InstantSource clock) {
        var index = new CassandraRunIndex(settings, clock);
        try {
            index.connection.await();
        } catch (RuntimeException failed) {
            index.close();
            throw failed;
        }
        return index;
    }

    @Override public void close() {
        connection.close();
    }

    @Override public void put(RunSummary summary, long version) {
        String run = summary.config().run().value();
        String owner = summary.config().owner();
        long timestamp = timestamp(version);
        List<BoundQuery> writes = new ArrayList<>();
        writes.add(new BoundQuery(CLEAR, timestamp - 1, owner, run));
        writes.add(new BoundQuery(PUT, owner, run, RUN, summary.config().createdAtMillis(), Long.MAX_VALUE,
                version, IndexTypes.TYPES.manifest(summary), ByteBuffer.wrap(IndexTypes.TYPES.write(summary)),
                        timestamp));
        int place = 0;
        for (CheckpointManifest checkpoint : summary.checkpoints())
            writes.add(new BoundQuery(PUT, owner, run, place++, checkpoint.createdAtMillis(),
                    checkpoint.expiresAtMillis().orElse(Long.MAX_VALUE), version,
                    IndexTypes.TYPES.manifest(checkpoint),
                    ByteBuffer.wrap(IndexTypes.TYPES.write(checkpoint)), timestamp));
        Cql cql = connection.await();
        await("write run " + run + " to",
                cql.execute(OWNER, run, owner).thenCompose(_ -> cql.executeBatch(writes)));
    }

    /// At least 2: the deletion has the timestamp below it.
    private static long timestamp(long version) {
        if (version < 0 || version > Long.MAX_VALUE / 2 - 1)
            throw new IllegalArgumentException("version " + version + " of a run is out of range");
        return 2 * version + 2;
    }

    @Override public void remove(RunId run) {
        Cql cql = connection.await();
        String what = "remove run " + run + " from";
        var owner = Cql.firstRow(await(what, cql.execute(FIND_OWNER, run.value())));
        if (owner.isEmpty()) return;
        String name = owner.get().getString("owner");
        var version = Cql.firstRow(await(what, cql.execute(VERSION, name, run.value())));
        // A deletion wins over writes with its timestamp; only a newer version inserts the run again.
        if (version.isPresent())
            await(what, cql.execute(CLEAR, timestamp(version.get().getLong("version")), name, run.value()));
        await(what, cql.execute(DELETE_OWNER, run.value()));
    }

    @Override public ListingPage<RunSummary> runs(String owner, int limit, long offset) {
        return page(owner, limit, offset, name -> name.place() == RUN, RunSummary.class);
    }

    @Override public ListingPage<CheckpointManifest> checkpoints(String owner, int limit, long offset) {
        long now = clock.millis();
        return page(owner, limit, offset, name -> name.place() != RUN && name.expires() > now,
                CheckpointManifest.class);
    }

    /// Reads the times of all rows, in pages: there is no index of them.
    @Override public List<RunId> expired() {
        long now = clock.millis();
        var runs = new LinkedHashSet<RunId>();
        Cql cql = connection.await();
        await("read", cql.execute(EXPIRIES).thenCompose(first -> cql.eachRow(first, row -> {
            if (row.getLong("expires") <= now) runs.add(new RunId(row.getString("run")));
        })));
        return List.copyOf(runs);
    }

    private <T> ListingPage<T> page(String owner, int limit, long offset, Predicate<Name> wanted,
            Class<T> type) {
        if (limit < 1 || limit > MAX_PAGE || offset < 0)
            throw new IllegalArgumentException("limit " + limit + ", offset " + offset + "; expected 1 to "
                    + MAX_PAGE + ", at least 0");
        Cql cql = connection.await();
        List<Name> names = await("read", cql.execute(NAMES, owner).thenCompose(cql::allRows)).stream()
                .map(row -> new Name(row.getString("run"), row.getInt("place"), row.getLong("created"),
                        row.getLong("expires"))).filter(wanted).sorted(NEWEST_FIRST).toList();
        List<CompletionStage<AsyncResultSet>> bodies = names.stream().skip(offset).limit(limit)
                .map(name -> cql.execute(BODY, owner, name.run(), name.place())).toList();
        var items = new ArrayList<T>();
        for (var body : bodies)
            // A missing row was removed after the names were read.
            Cql.firstRow(await("read", body)).flatMap(row -> read(type, row)).ifPresent(items::add);
        return new ListingPage<>(items, names.size());
    }

    private static <T> Optional<T> read(Class<T> type, Row row) {
        ByteBuffer body = row.getByteBuffer("body");
        byte[] bytes = new byte[body.remaining()];
        body.get(bytes);
        return IndexTypes.read(type, row.getString("manifest"), bytes);
    }

    private static <T> T await(String what, CompletionStage<T> stage) {
        try {
            return Cql.await(stage);
        } catch (DriverException failed) {
            throw new IllegalStateException(
                    "cannot " + what + " the run index: " + failed.getMessage(), failed);
        }
    }
}
