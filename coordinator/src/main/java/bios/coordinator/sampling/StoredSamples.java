package bios.coordinator.sampling;

import bios.persistence.sampling.SamplingTaskStore;
import bios.protocol.sampling.SampleTask;
import bios.protocol.stored.StoredType;
import bios.protocol.stored.StoredTypes;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;

/// Accepted requests in a store. A task is kept as its manifest in a line, then CBOR.
public final class StoredSamples implements AcceptedSamples {
    private static final String NAME = "sample-task";
    static final StoredTypes TYPES = new StoredTypes(List.of(StoredType.first(NAME,
            SampleTask.class)));
    private final SamplingTaskStore store;
    private final Executor blocking;

    /// @param blocking runs what waits for the store: a thread per task
    public StoredSamples(SamplingTaskStore store, Executor blocking) {
        this.store = store;
        this.blocking = blocking;
    }

    @Override public CompletionStage<Void> keep(String request, Accepted accepted) {
        return CompletableFuture.runAsync(() -> store.put(request, accepted.owner(), encode(accepted.task())),
                blocking);
    }

    @Override public CompletionStage<Optional<Accepted>> find(String request) {
        return CompletableFuture.supplyAsync(() -> store.find(request)
                .map(task -> new Accepted(task.owner(), decode(task.body()))), blocking);
    }

    @Override public CompletionStage<Void> forget(long olderThanMillis) {
        return CompletableFuture.runAsync(() -> store.sweep(olderThanMillis), blocking);
    }

    static byte[] encode(SampleTask task) {
        return TYPES.writeNamed(task);
    }

    static SampleTask decode(byte[] bytes) {
        return (SampleTask) TYPES.readNamed(NAME, bytes);
    }
}
