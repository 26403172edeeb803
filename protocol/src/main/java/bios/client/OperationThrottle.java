package bios.client;

import java.util.ArrayDeque;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Supplier;

/// Starts operations in the order in which they come, as many at a time as are allowed. Thread-safe.
final class OperationThrottle {
    private final int most;
    private final int mostWaiting;
    private final Queue<Runnable> waiting = new ArrayDeque<>();
    private int running;

    OperationThrottle(int most, int mostWaiting) {
        this.most = most;
        this.mostWaiting = mostWaiting;
    }

    /// Starts `operation`, now or when another one has ended.
    <A> CompletionStage<A> run(Supplier<CompletionStage<A>> operation) {
        var result = new CompletableFuture<A>();
        Runnable start = () -> operation.get().whenComplete((value, failed) -> {
            if (failed == null) result.complete(value);
            else result.completeExceptionally(BiosClient.cause(failed));
            next();
        });
        synchronized (this) {
            if (running == most) {
                if (waiting.size() == mostWaiting)
                    return CompletableFuture.failedStage(new BiosException.ClientFull(mostWaiting
                            + " operations wait behind " + most + " that are not finished"));
                waiting.add(start);
                return result;
            }
            running++;
        }
        start.run();
        return result;
    }

    private void next() {
        Runnable start;
        synchronized (this) {
            start = waiting.poll();
            if (start == null) {
                running--;
                return;
            }
        }
        start.run();
    }
}
