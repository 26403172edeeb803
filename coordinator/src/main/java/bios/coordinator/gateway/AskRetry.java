package bios.coordinator.gateway;

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
    /// Pekko's run on the JVM's common pool, which costs a thread wake-up each time.
    static <T> CompletionStage<T> onDispatcher(CompletionStage<T> reply, ActorSystem<?> system) {
        var answer = new CompletableFuture<T>();
        FutureConverters.asScala(reply).onComplete(outcome -> outcome.isSuccess()
                ? answer.complete(outcome.get())
                : answer.completeExceptionally(outcome.failed().get()), system.executionContext());
        return answer;
    }
}
