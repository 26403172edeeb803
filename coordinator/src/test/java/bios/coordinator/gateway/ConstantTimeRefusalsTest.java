package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.junit.jupiter.api.Test;

/// Answers for ids of others and for ids of nobody come at the same times.
class ConstantTimeRefusalsTest {
    private long nanos;
    private final List<Long> given = new ArrayList<>();
    private final ConstantTimeRefusals refusals = new ConstantTimeRefusals(() -> nanos, delay -> work -> {
        given.add(nanos + delay.toNanos());
        work.run();
    });

    private CompletionStage<String> answered(long afterMillis, Throwable failure) {
        given.clear();
        nanos = 0;
        var reply = new CompletableFuture<String>();
        CompletionStage<String> answer = refusals.ask(reply);
        nanos = Duration.ofMillis(afterMillis).toNanos();
        if (failure == null) reply.complete("fine");
        else reply.completeExceptionally(failure);
        return answer;
    }

    @Test void aRefusalDoesNotTellHowLongItTook() {
        for (long millis : new long[] {0, 1, 7, 49}) {
            var failed = answered(millis, GatewayServices.noRun("a-1")).toCompletableFuture();
            assertTrue(failed.isCompletedExceptionally());
            assertEquals(List.of(ConstantTimeRefusals.STEP.toNanos()), given, () -> millis + " ms");
        }
        answered(7, new ApiException(ErrorCode.GONE, "it is no longer here"));
        assertEquals(List.of(ConstantTimeRefusals.STEP.toNanos()), given);
        answered(51, GatewayServices.noRun("a-1"));
        assertEquals(List.of(2 * ConstantTimeRefusals.STEP.toNanos()), given);
    }

    @Test void otherAnswersAreGivenAtOnce() {
        assertEquals("fine", answered(3, null).toCompletableFuture().join());
        assertTrue(given.isEmpty());
        assertTrue(answered(3, new ApiException(ErrorCode.QUEUE_FULL, "wait")).toCompletableFuture()
                .isCompletedExceptionally());
        assertFalse(!given.isEmpty());
    }
}
