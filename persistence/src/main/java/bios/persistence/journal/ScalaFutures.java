package bios.persistence.journal;

import java.util.concurrent.Callable;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import scala.concurrent.Future;
import scala.concurrent.Promise;

/// Converts Java's results to Scala futures, which Pekko's plugins return.
final class ScalaFutures {
    private ScalaFutures() {}

    /// The result of a stage. A failure is unwrapped from its `CompletionException`.
    static <T> Future<T> of(CompletionStage<T> stage) {
        Promise<T> promise = Promise.apply();
        stage.whenComplete((value, failure) -> {
            if (failure == null) promise.success(value);
            else promise.failure(failure instanceof CompletionException wrapped && wrapped.getCause() != null
                    ? wrapped.getCause() : failure);
        });
        return promise.future();
    }

    /// A failed future.
    static <T> Future<T> failed(Throwable failure) {
        return Promise.<T>failed(failure).future();
    }

    /// The result of blocking work, which starts at once on a virtual thread of its own.
    static <T> Future<T> onVirtualThread(Callable<T> work) {
        Promise<T> promise = Promise.apply();
        Thread.startVirtualThread(() -> {
            try {
                promise.success(work.call());
            } catch (Throwable failed) {
                promise.failure(failed);
            }
        });
        return promise.future();
    }
}
