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

/// Stores accepted requests in [SamplingTaskStore]. A task is stored as a line with its manifest, followed by
/// CBOR.
public final class PersistentSampleRequestStore implements SampleRequestStore {
    private static final String NAME = "sample-task";
    static final StoredTypes TYPES = new StoredTypes(List.of(StoredType.first(NAME,
            SampleTask.class)));
    private final SamplingTaskStore store;
    private final Executor blocking;

    /// @param blocking executor for blocking calls of the store, a thread for each task
    public PersistentSampleRequestStore(SamplingTaskStore store, Executor blocking) {
        this.store = store;
        this.blocking = blocking;
    }

    @Override public CompletionStage<Void> put(String request, StoredRequest stored) {
        return CompletableFuture.runAsync(() -> store.put(request, stored.owner(), encode(stored.task())),
                blocking);
    }

    @Override public CompletionStage<Optional<StoredRequest>> find(String request) {
        return CompletableFuture.supplyAsync(() -> store.find(request)
                .map(task -> new StoredRequest(task.owner(), decode(task.body()))), blocking);
    }

    @Override public CompletionStage<Void> remove(List<String> requests) {
        return CompletableFuture.runAsync(() -> store.remove(requests), blocking);
    }

    @Override public CompletionStage<Void> deleteOlderThan(long ageMillis) {
        return CompletableFuture.runAsync(() -> store.deleteOlderThan(ageMillis), blocking);
    }

    static byte[] encode(SampleTask task) {
        return TYPES.writeNamed(task);
    }

    static SampleTask decode(byte[] bytes) {
        return (SampleTask) TYPES.readNamed(NAME, bytes);
    }
}
