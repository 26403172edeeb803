package bios.coordinator.gateway;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.function.Function;
import java.util.function.LongSupplier;

/// Delays the refusals "there is no such id, or it is not yours" and "it is no longer here" to the next
/// multiple of [#STEP] after the request, so that its time does not tell whether the id exists. Without that,
/// an entity in memory would refuse at once, one that has to be recovered after some milliseconds, and an
/// unknown id at another time.
final class ConstantTimeRefusals {
    /// Longer than the recovery of almost every entity.
    static final Duration STEP = Duration.ofMillis(50);

    private final LongSupplier nanos;
    private final Function<Duration, Executor> after;

    /// @param nanos monotonic clock
    /// @param after an executor that runs what it is given after a time
    ConstantTimeRefusals(LongSupplier nanos, Function<Duration, Executor> after) {
        this.nanos = nanos;
        this.after = after;
    }

    /// The reply; a refusal as not found or gone is delayed.
    <T> CompletionStage<T> ask(CompletionStage<T> reply) {
        long began = nanos.getAsLong();
        return reply.exceptionallyCompose(failed -> {
            var failure = CompletableFuture.<T>failedStage(failed);
            if (!(GatewayServices.cause(failed) instanceof ApiException error)
                    || error.code() != ErrorCode.NOT_FOUND && error.code() != ErrorCode.GONE) return failure;
            long step = STEP.toNanos();
            long rest = step - (nanos.getAsLong() - began) % step;
            return CompletableFuture.runAsync(() -> { }, after.apply(Duration.ofNanos(rest)))
                    .thenCompose(_ -> failure);
        });
    }
}
