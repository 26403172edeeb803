package bios.coordinator.sampling;

import bios.protocol.sampling.SampleTask;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// Accepted sampling requests where all coordinators find them, so that another one can answer when the one
/// that accepted a request has died.
public interface AcceptedSamples {
    /// A request and whose it is.
    record Accepted(String owner, SampleTask task) {}

    /// Keeps a request; completed when it is durable. Keeping it again is harmless.
    ///
    /// @param request the id under which its result can be retrieved
    CompletionStage<Void> keep(String request, Accepted accepted);

    /// The request, unless there is none or it is too old.
    CompletionStage<Optional<Accepted>> find(String request);

    /// Forgets requests that are older than this, milliseconds.
    CompletionStage<Void> forget(long olderThanMillis);

    /// Keeps nothing: requests die with their coordinator.
    AcceptedSamples NONE = new AcceptedSamples() {
        @Override public CompletionStage<Void> keep(String request, Accepted accepted) {
            return CompletableFuture.completedStage(null);
        }

        @Override public CompletionStage<Optional<Accepted>> find(String request) {
            return CompletableFuture.completedStage(Optional.empty());
        }

        @Override public CompletionStage<Void> forget(long olderThanMillis) {
            return CompletableFuture.completedStage(null);
        }
    };
}
