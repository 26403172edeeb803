package bios.persistence.cassandra;

import com.datastax.oss.driver.api.core.AllNodesFailedException;
import com.datastax.oss.driver.api.core.DriverException;
import com.datastax.oss.driver.api.core.auth.AuthenticationException;
import com.datastax.oss.driver.api.core.servererrors.QueryValidationException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/// Retries requests that failed for a transient reason: a node restarts, a connection broke, a request timed
/// out. The requests must be idempotent.
///
/// @param limit no attempt starts later than this after the first
public record RetryPolicy(Duration limit) {
    private static final long FIRST_PAUSE_MILLIS = 50;
    private static final long LAST_PAUSE_MILLIS = 1000;

    /// Calls `attempt` until it succeeds, fails permanently, or the limit is over.
    public <T> CompletionStage<T> call(Supplier<CompletionStage<T>> attempt) {
        var result = new CompletableFuture<T>();
        long begin = System.nanoTime(); // edge: measures the time since the first attempt
        attempt(attempt, result, begin, FIRST_PAUSE_MILLIS);
        return result;
    }

    private <T> void attempt(Supplier<CompletionStage<T>> attempt, CompletableFuture<T> result, long begin,
            long pauseMillis) {
        CompletionStage<T> stage;
        try {
            stage = attempt.get();
        } catch (RuntimeException failed) {
            stage = CompletableFuture.failedFuture(failed);
        }
        stage.whenComplete((value, failure) -> {
            if (failure == null) {
                result.complete(value);
                return;
            }
            Throwable cause = CassandraConnection.unwrap(failure);
            long elapsed = System.nanoTime() - begin; // edge: see above
            if (!isTransient(cause) || elapsed + TimeUnit.MILLISECONDS.toNanos(pauseMillis) > limit.toNanos())
                result.completeExceptionally(cause);
            else CompletableFuture.delayedExecutor(pauseMillis, TimeUnit.MILLISECONDS).execute(() ->
                    attempt(attempt, result, begin, Math.min(2 * pauseMillis, LAST_PAUSE_MILLIS)));
        });
    }

    /// Whether the same request may succeed a little later.
    static boolean isTransient(Throwable failure) {
        return switch (failure) {
            case QueryValidationException _ -> false;
            case AuthenticationException _ -> false;
            case AllNodesFailedException none -> none.getAllErrors().values().stream().flatMap(List::stream)
                    .noneMatch(error -> error instanceof QueryValidationException);
            case DriverException _ -> true;
            case null, default -> false;
        };
    }
}
