package bios.coordinator.gateway;

import bios.protocol.wire.LargeReply;
import bios.protocol.wire.Outbox;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorSystem;
import scala.jdk.javaapi.FutureConverters;

/// Repeats an ask that times out: a message to an entity is lost when its node dies or its journal fails, and
/// the entity answers again after it has moved or restarted.
final class AskRetry {
    /// Timeout of one attempt; an entity that has not moved answers faster.
    static final Duration ATTEMPT = Duration.ofSeconds(3);

    private AskRetry() {}

    /// Asks until a reply arrives or `timeout` has passed; then fails with the [TimeoutException] of the last
    /// attempt. The ask must be idempotent.
    ///
    /// @param question asks once, with the given timeout
    static <R> CompletionStage<R> ask(Duration timeout, Function<Duration, CompletionStage<R>> question) {
        Duration attempt = timeout.compareTo(ATTEMPT) < 0 ? timeout : ATTEMPT;
        Duration rest = timeout.minus(attempt);
        return question.apply(attempt).handle((answer, failed) -> failed == null
                ? CompletableFuture.completedStage(answer)
                : rest.isPositive() && GatewayServices.cause(failed) instanceof TimeoutException
                ? ask(rest, question) : CompletableFuture.<R>failedStage(failed))
                .thenCompose(Function.identity());
    }

    /// The same reply as a stage whose callbacks run on the system's dispatcher. Callbacks of a stage of
    /// Pekko's run on the JVM's common pool, which costs a thread wake-up each time. A reply that is larger
    /// than a frame is fetched.
    static <T> CompletionStage<T> onDispatcher(CompletionStage<T> reply, ActorSystem<?> system) {
        var answer = new CompletableFuture<T>();
        FutureConverters.asScala(reply).onComplete(outcome -> {
            if (outcome.isFailure()) return answer.completeExceptionally(outcome.failed().get());
            Object given = outcome.get();
            if (given instanceof LargeReply large) return Outbox.fetch(large, system)
                    .whenComplete((whole, failed) -> complete(answer, whole, failed));
            return complete(answer, given, null);
        }, system.executionContext());
        return answer;
    }

    @SuppressWarnings("unchecked") // the type that was asked for
    private static <T> boolean complete(CompletableFuture<T> answer, Object reply, Throwable failed) {
        return failed == null ? answer.complete((T) reply)
                : answer.completeExceptionally(GatewayServices.cause(failed));
    }
}
