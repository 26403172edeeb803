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

/// A session with the few ways in which we ask. In a statement `KEYSPACE` stands for the keyspace's name.
/// Statements are prepared once; the driver keeps them.
public final class Cql {
    private final CqlSession session;
    private final CassandraSettings settings;
    private final ConsistencyLevel serial;
    private final Patience patience;

    Cql(CqlSession session, CassandraSettings settings) {
        this.session = session;
        this.settings = settings;
        this.serial = DefaultConsistencyLevel.valueOf(settings.serialConsistency());
        this.patience = new Patience(settings.retryFor());
    }

    /// How this session was opened.
    public CassandraSettings settings() {
        return settings;
    }

    CqlSession session() {
        return session;
    }

    /// How long unknown outcomes are tried again.
    public Patience patience() {
        return patience;
    }

    /// Reads or writes; may be done twice without harm, and is tried again for a while.
    public CompletionStage<AsyncResultSet> ask(String text, Object... values) {
        return patience.with(() -> prepared(text).thenCompose(
                statement -> session.executeAsync(statement.bind(values).setIdempotent(true))));
    }

    /// A statement and its values.
    public record Ask(String text, Object... values) {}

    /// Writes that are done together or not at all; all of them in one partition, and harmless when repeated.
    public CompletionStage<AsyncResultSet> together(List<Ask> writes) {
        return patience.with(() -> {
            CompletionStage<BatchStatement> batch = CompletableFuture.completedFuture(
                    BatchStatement.newInstance(BatchType.UNLOGGED).setIdempotent(true));
            for (Ask write : writes)
                batch = batch.thenCombine(prepared(write.text()), (before, statement) ->
                        before.add(statement.bind(write.values())));
            return batch.thenCompose(session::executeAsync);
        });
    }

    /// Like [#ask], by pages of so many rows.
    public CompletionStage<AsyncResultSet> pages(int rows, String text, Object... values) {
        return patience.with(() -> prepared(text).thenCompose(statement -> session
                .executeAsync(statement.bind(values).setIdempotent(true).setPageSize(rows))));
    }

    /// Reads what all lightweight transactions before have left, also those whose outcome nobody knows yet.
    public CompletionStage<Optional<Row>> askSerially(String text, Object... values) {
        return patience.with(() -> prepared(text).thenCompose(statement -> session.executeAsync(
                statement.bind(values).setIdempotent(true).setConsistencyLevel(serial))))
                .thenApply(rows -> Optional.ofNullable(rows.one()));
    }

    /// A lightweight transaction, once: the caller knows what an unknown outcome means.
    public CompletionStage<AsyncResultSet> decide(String text, Object... values) {
        return prepared(text).thenCompose(statement -> {
            BoundStatement bound = statement.bind(values).setIdempotent(false);
            return session.executeAsync(bound);
        });
    }

    private CompletionStage<PreparedStatement> prepared(String text) {
        return session.prepareAsync(text.replace("KEYSPACE", settings.keyspace()));
    }

    /// The first row, if there is one.
    public static Optional<Row> first(AsyncResultSet rows) {
        return Optional.ofNullable(rows.one());
    }

    /// All rows of all pages. For lists that fit in memory.
    public CompletionStage<List<Row>> all(AsyncResultSet page) {
        return all(page, new ArrayList<>());
    }

    private CompletionStage<List<Row>> all(AsyncResultSet page, List<Row> into) {
        page.currentPage().forEach(into::add);
        if (!page.hasMorePages()) return CompletableFuture.completedFuture(into);
        return patience.with(page::fetchNextPage).thenCompose(next -> all(next, into));
    }

    /// Waits for an answer: for stores, whose callers may block.
    public static <T> T await(CompletionStage<T> stage) {
        return CassandraConnection.await(stage);
    }
}
