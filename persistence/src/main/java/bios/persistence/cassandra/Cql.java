package bios.persistence.cassandra;

import com.datastax.oss.driver.api.core.ConsistencyLevel;
import com.datastax.oss.driver.api.core.CqlSession;
import com.datastax.oss.driver.api.core.DefaultConsistencyLevel;
import com.datastax.oss.driver.api.core.cql.AsyncResultSet;
import com.datastax.oss.driver.api.core.cql.BatchStatement;
import com.datastax.oss.driver.api.core.cql.BatchType;
import com.datastax.oss.driver.api.core.cql.BoundStatement;
import com.datastax.oss.driver.api.core.cql.PreparedStatement;
import com.datastax.oss.driver.api.core.cql.Row;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Consumer;

/// A session with Cassandra and the kinds of requests that the stores need. In a statement, `KEYSPACE` stands
/// for the name of the keyspace. Statements are prepared once; the driver caches them.
public final class Cql {
    private final CqlSession session;
    private final CassandraSettings settings;
    private final ConsistencyLevel serial;
    private final RetryPolicy retries;

    Cql(CqlSession session, CassandraSettings settings) {
        this.session = session;
        this.settings = settings;
        this.serial = DefaultConsistencyLevel.valueOf(settings.serialConsistency());
        this.retries = new RetryPolicy(settings.retryFor());
    }

    /// How this session was opened.
    public CassandraSettings settings() {
        return settings;
    }

    CqlSession session() {
        return session;
    }

    /// How requests are retried whose outcome is unknown.
    public RetryPolicy retries() {
        return retries;
    }

    /// Executes an idempotent read or write, with retries.
    public CompletionStage<AsyncResultSet> execute(String text, Object... values) {
        return retries.call(() -> prepared(text).thenCompose(
                statement -> session.executeAsync(statement.bind(values).setIdempotent(true))));
    }

    /// A statement and its values.
    public record BoundQuery(String text, Object... values) {}

    /// Executes idempotent writes to one partition, all or none, with retries.
    public CompletionStage<AsyncResultSet> executeBatch(List<BoundQuery> writes) {
        return retries.call(() -> {
            CompletionStage<BatchStatement> batch = CompletableFuture.completedFuture(
                    BatchStatement.newInstance(BatchType.UNLOGGED).setIdempotent(true));
            for (BoundQuery write : writes)
                batch = batch.thenCombine(prepared(write.text()), (before, statement) ->
                        before.add(statement.bind(write.values())));
            return batch.thenCompose(session::executeAsync);
        });
    }

    /// Like [#execute], with pages of `rows` rows.
    public CompletionStage<AsyncResultSet> executePaged(int rows, String text, Object... values) {
        return retries.call(() -> prepared(text).thenCompose(statement -> session
                .executeAsync(statement.bind(values).setIdempotent(true).setPageSize(rows))));
    }

    /// Reads one row with serial consistency: it reflects every earlier lightweight transaction, also those
    /// whose outcome was unknown.
    public CompletionStage<Optional<Row>> readSerial(String text, Object... values) {
        return retries.call(() -> prepared(text).thenCompose(statement -> session.executeAsync(
                statement.bind(values).setIdempotent(true).setConsistencyLevel(serial))))
                .thenApply(rows -> Optional.ofNullable(rows.one()));
    }

    /// Executes a lightweight transaction without retries: only the caller can tell whether one of unknown
    /// outcome was applied.
    public CompletionStage<AsyncResultSet> executeConditional(String text, Object... values) {
        return prepared(text).thenCompose(statement -> {
            BoundStatement bound = statement.bind(values).setIdempotent(false);
            return session.executeAsync(bound);
        });
    }

    private CompletionStage<PreparedStatement> prepared(String text) {
        return session.prepareAsync(text.replace("KEYSPACE", settings.keyspace()));
    }

    /// The first row, if there is one.
    public static Optional<Row> firstRow(AsyncResultSet rows) {
        return Optional.ofNullable(rows.one());
    }

    /// All rows of all pages. For lists that fit in memory.
    public CompletionStage<List<Row>> allRows(AsyncResultSet page) {
        var all = new ArrayList<Row>();
        return eachRow(page, all::add).thenApply(_ -> all);
    }

    /// Passes the rows of all pages on, page by page: for what is too much for the memory.
    public CompletionStage<Void> eachRow(AsyncResultSet page, Consumer<Row> to) {
        page.currentPage().forEach(to);
        if (!page.hasMorePages()) return CompletableFuture.completedFuture(null);
        return retries.call(page::fetchNextPage).thenCompose(next -> eachRow(next, to));
    }

    /// Blocks until the result is there: for stores, whose callers may block.
    public static <T> T await(CompletionStage<T> stage) {
        return CassandraConnection.await(stage);
    }
}
