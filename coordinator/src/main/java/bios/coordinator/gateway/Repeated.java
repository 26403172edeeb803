package bios.coordinator.gateway;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorSystem;
import scala.jdk.javaapi.FutureConverters;

/// Questions that are asked again when no answer comes: a message to an entity is lost when its node dies
/// or its journal fails, and whoever holds the entity next answers at once.
final class Repeated {
    /// How long one attempt waits: an entity that is where it was answers sooner.
    static final Duration ATTEMPT = Duration.ofSeconds(3);

    private Repeated() {}

    /// Asks until there is an answer or the time is up; then it fails with [TimeoutException] as the last
    /// attempt did. The question must be harmless to repeat.
    ///
    /// @param question asks once, for at most the time that it is given
    static <R> CompletionStage<R> ask(Duration timeout, Function<Duration, CompletionStage<R>> question) {
        Duration attempt = timeout.compareTo(ATTEMPT) < 0 ? timeout : ATTEMPT;
        Duration rest = timeout.minus(attempt);
        return question.apply(attempt).handle((answer, failed) -> failed == null
                ? CompletableFuture.completedStage(answer)
                : rest.isPositive() && Backend.cause(failed) instanceof TimeoutException
                ? ask(rest, question) : CompletableFuture.<R>failedStage(failed))
                .thenCompose(Function.identity());
    }

    /// The same answer as a plain stage: what hangs on a stage that Pekko made is run by the JVM's common
    /// pool, whose threads must be woken for it each time.
    static <T> CompletionStage<T> straight(CompletionStage<T> asked, ActorSystem<?> system) {
        var answer = new CompletableFuture<T>();
        FutureConverters.asScala(asked).onComplete(outcome -> outcome.isSuccess()
                ? answer.complete(outcome.get())
                : answer.completeExceptionally(outcome.failed().get()), system.executionContext());
        return answer;
    }
}
