package bios.coordinator.run;

import bios.persistence.blob.BlobStore;
import bios.persistence.index.RunIndex;
import bios.protocol.engine.EngineCommand;
import bios.protocol.run.DeathReport;
import bios.protocol.run.RunId;
import java.time.InstantSource;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.ObjLongConsumer;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorRef;

/// The parts of a node that its runs use.
///
/// @param engine the engine that serves their base model, on the same node
/// @param blocking executor of blocking work, a thread for each task
/// @param memory the memory that the runs of the node use
/// @param deaths what the ends of earlier processes of the node say about a run
/// @param executed records on the node that a run was executed up to a position
/// @param contained records on the node that a run has a recovery point at a position
/// @param nanos monotonic clock in nanoseconds
/// @param starter starts the entity of a passivated run again
public record RunEnvironment(ActorRef<EngineCommand> engine, BlobStore blobs, RunIndex index,
        CheckpointResolver resolver, InstantSource clock, Executor blocking, RunSettings settings,
        NodeMemory memory, Function<RunId, Optional<DeathReport>> deaths,
        ObjLongConsumer<RunId> executed, ObjLongConsumer<RunId> contained, LongSupplier nanos,
        Consumer<RunId> starter) {
    /// An environment whose blocking work runs on virtual threads.
    public static RunEnvironment of(ActorRef<EngineCommand> engine, BlobStore blobs, RunIndex index,
            CheckpointResolver resolver, InstantSource clock, RunSettings settings) {
        return new RunEnvironment(engine, blobs, index, resolver, clock,
                task -> Thread.ofVirtual().start(task), settings, new NodeMemory(settings.nodeResultBytes()),
                _ -> Optional.empty(), (_, _) -> {}, (_, _) -> {},
                System::nanoTime, // edge: a monotonic clock
                _ -> {});
    }

    /// The same environment with a starter.
    RunEnvironment withStarter(Consumer<RunId> starter) {
        return new RunEnvironment(engine, blobs, index, resolver, clock, blocking, settings, memory,
                deaths, executed, contained, nanos, starter);
    }

    /// The same environment with another monotonic clock.
    RunEnvironment withNanos(LongSupplier nanos) {
        return new RunEnvironment(engine, blobs, index, resolver, clock, blocking, settings, memory,
                deaths, executed, contained, nanos, starter);
    }

    /// The same environment with the marks of the node.
    public RunEnvironment withMarks(Function<RunId, Optional<DeathReport>> deaths,
            ObjLongConsumer<RunId> executed, ObjLongConsumer<RunId> contained) {
        return new RunEnvironment(engine, blobs, index, resolver, clock, blocking, settings, memory,
                deaths, executed, contained, nanos, starter);
    }

    <T> CompletionStage<T> later(Supplier<T> work) {
        return CompletableFuture.supplyAsync(work, blocking);
    }
}
