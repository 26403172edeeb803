package bios.worker.engine;

import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.RunConfig;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import java.util.function.LongConsumer;
import org.apache.pekko.actor.typed.ActorRef;

/// The operations of an open run that have no outcome yet, in their order, and its replies. Only the engine
/// uses it.
final class RunQueue {
    final RunConfig config;
    /// The entity that opened the run.
    final long incarnation;
    final ResidentRun run;
    final OrderedReplies replies;
    /// The run's entity.
    final ActorRef<EngineEvent> entity;
    /// Bytes that are reserved for its state: the most that it has had or that an operation will give it.
    long bytes;
    private long stateBytes;
    /// Whether it waits for [RunAdmission].
    boolean waiting;
    /// Copies of its state that are being written.
    int copies;
    /// Whether its state itself is being written: it must not be replaced.
    boolean beingWritten;
    private final Deque<QueuedOperation> operations = new ArrayDeque<>();

    /// @param executed records what was executed to its end, see [OrderedReplies]
    RunQueue(RunConfig config, long incarnation, ResidentRun run, ActorRef<EngineEvent> entity, long bytes,
            LongConsumer executed) {
        this.config = config;
        this.incarnation = incarnation;
        this.run = run;
        this.entity = entity;
        this.bytes = bytes;
        this.stateBytes = bytes;
        this.replies = new OrderedReplies(executed);
    }

    /// Adds the next operation.
    void add(QueuedOperation operation) {
        operations.add(operation);
    }

    /// Removes an operation that has its outcome.
    void remove(QueuedOperation operation) {
        operations.remove(operation);
    }

    /// An operation has given the run another state.
    void loaded(QueuedOperation operation) {
        stateBytes = Math.max(stateBytes, operation.stateBytes);
    }

    /// Bytes that the state needs, now and behind the operations that have no outcome.
    long neededBytes() {
        return Math.max(stateBytes, operations.stream().mapToLong(o -> o.stateBytes).max().orElse(0));
    }

    /// Removes all operations and returns them.
    List<QueuedOperation> clear() {
        List<QueuedOperation> all = List.copyOf(operations);
        operations.clear();
        return all;
    }

    /// Whether it has nothing to do and nothing under way.
    boolean idle() {
        return operations.isEmpty() && copies == 0;
    }

    /// The first of the first `count` operations that is new.
    Optional<QueuedOperation> toDecode(int count) {
        return operations.stream().limit(count).filter(o -> o.stage == QueuedOperation.Stage.NEW).findFirst();
    }

    /// The next operation to be submitted, if it is decoded or has failed. An operation that
    /// reads a stream is submitted when all earlier ones are done, and later ones wait for it.
    Optional<QueuedOperation> toSubmit() {
        boolean first = true;
        for (QueuedOperation operation : operations) {
            switch (operation.stage) {
                case NEW, DECODING -> {
                    return Optional.empty();
                }
                case READY -> {
                    boolean waits = operation.fault().isEmpty() && operation.task().streamed()
                            && (!first || beingWritten);
                    return waits ? Optional.empty() : Optional.of(operation);
                }
                case SUBMITTED -> {
                    if (operation.task().streamed()) return Optional.empty();
                    first = false;
                }
            }
        }
        return Optional.empty();
    }
}
