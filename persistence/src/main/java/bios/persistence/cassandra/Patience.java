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

/// Tries again what failed because of a passing state of the world: a node that restarts, a connection that
/// broke, an answer that did not come. What is tried must not mind being done twice.
///
/// @param limit no attempt begins later than this after the first
public record Patience(Duration limit) {
    private static final long FIRST_PAUSE_MILLIS = 50;
    private static final long LAST_PAUSE_MILLIS = 1000;

    /// Does it until it succeeds, fails for good, or the limit is over.
    public <T> CompletionStage<T> with(Supplier<CompletionStage<T>> attempt) {
        var result = new CompletableFuture<T>();
        long begin = System.nanoTime(); // edge: how long the world has been away
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
            long gone = System.nanoTime() - begin; // edge: see above
            if (!passing(cause) || gone + TimeUnit.MILLISECONDS.toNanos(pauseMillis) > limit.toNanos())
                result.completeExceptionally(cause);
            else CompletableFuture.delayedExecutor(pauseMillis, TimeUnit.MILLISECONDS).execute(() ->
                    attempt(attempt, result, begin, Math.min(2 * pauseMillis, LAST_PAUSE_MILLIS)));
        });
    }

    /// Whether the same may succeed a little later.
    static boolean passing(Throwable failure) {
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
