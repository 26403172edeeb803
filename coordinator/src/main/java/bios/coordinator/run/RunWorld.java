package bios.coordinator.run;

import bios.persistence.blob.BlobStore;
import bios.persistence.index.RunIndex;
import bios.protocol.engine.EngineCommand;
import bios.protocol.run.RunId;
import java.time.InstantSource;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.function.Consumer;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorRef;

/// What lies around the runs of a node.
///
/// @param engine the engine that holds their base model, on the same node
/// @param blocking runs what waits for files: a thread per task
/// @param memory what its runs take together
/// @param solo whose operation is tried alone
/// @param nanos measures times, in nanoseconds from an arbitrary beginning; decides nothing
/// @param waker begins a run again that has gone to rest
public record RunWorld(ActorRef<EngineCommand> engine, BlobStore blobs, RunIndex index,
        CheckpointResolver resolver, InstantSource clock, Executor blocking, RunSettings settings,
        NodeMemory memory, Solo solo, LongSupplier nanos, Consumer<RunId> waker) {
    /// A world whose blocking work runs on virtual threads.
    public static RunWorld of(ActorRef<EngineCommand> engine, BlobStore blobs, RunIndex index,
            CheckpointResolver resolver, InstantSource clock, RunSettings settings) {
        return new RunWorld(engine, blobs, index, resolver, clock,
                task -> Thread.ofVirtual().start(task), settings, new NodeMemory(settings.nodeResultBytes()),
                new Solo(), System::nanoTime, // edge: measures, decides nothing
                _ -> {});
    }

    /// The same world with a waker.
    RunWorld waking(Consumer<RunId> waker) {
        return new RunWorld(engine, blobs, index, resolver, clock, blocking, settings, memory, solo,
                nanos, waker);
    }

    <T> CompletionStage<T> later(Supplier<T> work) {
        return CompletableFuture.supplyAsync(work, blocking);
    }
}
