package bios.coordinator.sampling;

import bios.protocol.sampling.SampleTask;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// Stores accepted sampling requests for all coordinators until their results have expired, so that another
/// one can run a request after the loss of the one that accepted it.
public interface SampleRequestStore {
    /// A request and the account that owns it.
    record StoredRequest(String owner, SampleTask task) {}

    /// Stores a request; completed when it is durable. Idempotent.
    ///
    /// @param request the id under which its result can be retrieved
    CompletionStage<Void> put(String request, StoredRequest stored);

    /// The request; empty if it is unknown or expired.
    CompletionStage<Optional<StoredRequest>> find(String request);

    /// Deletes requests whose results have expired.
    CompletionStage<Void> remove(List<String> requests);

    /// Deletes requests older than this many milliseconds.
    CompletionStage<Void> deleteOlderThan(long ageMillis);

    /// Stores nothing: requests are lost with their coordinator.
    SampleRequestStore NONE = new SampleRequestStore() {
        @Override public CompletionStage<Void> put(String request, StoredRequest stored) {
            return CompletableFuture.completedStage(null);
        }

        @Override public CompletionStage<Optional<StoredRequest>> find(String request) {
            return CompletableFuture.completedStage(Optional.empty());
        }

        @Override public CompletionStage<Void> remove(List<String> requests) {
            return CompletableFuture.completedStage(null);
        }

        @Override public CompletionStage<Void> deleteOlderThan(long ageMillis) {
            return CompletableFuture.completedStage(null);
        }
    };
}
