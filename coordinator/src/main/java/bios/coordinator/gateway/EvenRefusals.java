package bios.coordinator.gateway;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.function.Function;
import java.util.function.LongSupplier;

/// Gives "there is no such id, or it is not yours" a time that does not tell which of both it is. An entity
/// that is in memory refuses at once, one that has to be recovered after some milliseconds, and an id that
/// nobody has is recovered too, from nothing: each such answer is given at the next multiple of [#STEP] after
/// its question.
final class EvenRefusals {
    /// Longer than the recovery of almost every entity.
    static final Duration STEP = Duration.ofMillis(50);

    private final LongSupplier nanos;
    private final Function<Duration, Executor> after;

    /// @param nanos monotonic clock
    /// @param after an executor that runs what it is given after a time
    EvenRefusals(LongSupplier nanos, Function<Duration, Executor> after) {
        this.nanos = nanos;
        this.after = after;
    }

    /// Asks; a refusal as not found is held back.
    <T> CompletionStage<T> ask(CompletionStage<T> reply) {
        long began = nanos.getAsLong();
        return reply.exceptionallyCompose(failed -> {
            var failure = CompletableFuture.<T>failedStage(failed);
            if (!(GatewayServices.cause(failed) instanceof ApiException error)
                    || error.code() != ErrorCode.NOT_FOUND) return failure;
            long step = STEP.toNanos();
            long rest = step - (nanos.getAsLong() - began) % step;
            return CompletableFuture.runAsync(() -> { }, after.apply(Duration.ofNanos(rest)))
                    .thenCompose(_ -> failure);
        });
    }
}
