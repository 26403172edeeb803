package bios.persistence.journal;

import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import scala.concurrent.Future;
import scala.concurrent.Promise;

/// Answers of the driver as Pekko wants them.
final class Answers {
    private Answers() {}

    /// A failure arrives as what it is, not as the `CompletionException` around it.
    static <T> Future<T> future(CompletionStage<T> stage) {
        Promise<T> promise = Promise.apply();
        stage.whenComplete((value, failure) -> {
            if (failure == null) promise.success(value);
            else promise.failure(failure instanceof CompletionException wrapped && wrapped.getCause() != null
                    ? wrapped.getCause() : failure);
        });
        return promise.future();
    }
}
