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

    /// Heap bytes for each byte of a reply that is fetched: as it arrives, and decoded.
    private static final int FETCHED_BYTES_EACH = 2;

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
    /// than a frame is fetched, if there is memory for it; otherwise the stage fails with an [ApiException]
    /// (429).
    static <T> CompletionStage<T> onDispatcher(CompletionStage<T> reply, ActorSystem<?> system,
            RequestMemory memory) {
        var answer = new CompletableFuture<T>();
        FutureConverters.asScala(reply).onComplete(outcome -> {
            if (outcome.isFailure()) return answer.completeExceptionally(outcome.failed().get());
            Object given = outcome.get();
            if (given instanceof LargeReply large) fetch(large, system, memory)
                    .whenComplete((whole, failed) -> complete(answer, whole, failed));
            else complete(answer, given, null);
            return null;
        }, system.executionContext());
        return answer;
    }

    /// Fetches a reply; it counts while it arrives, and what is made of it counts for itself.
    private static CompletionStage<Object> fetch(LargeReply large, ActorSystem<?> system,
            RequestMemory memory) {
        RequestMemory.Share share;
        try {
            share = memory.forResponse((long) FETCHED_BYTES_EACH * large.bytes());
        } catch (ApiException busy) {
            return CompletableFuture.failedStage(busy);
        }
        return Outbox.fetch(large, system).whenComplete((_, _) -> share.release());
    }

    @SuppressWarnings("unchecked") // the type that was asked for
    private static <T> boolean complete(CompletableFuture<T> answer, Object reply, Throwable failed) {
        return failed == null ? answer.complete((T) reply)
                : answer.completeExceptionally(GatewayServices.cause(failed));
    }
}
