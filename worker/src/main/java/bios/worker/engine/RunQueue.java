package bios.worker.engine;

import bios.protocol.Require;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.RunConfig;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// An open run as the actor knows it: what it still has to do, strictly in order, and
/// what it still has to say.
final class RunQueue {
    final RunConfig config;
    final ResidentRun held;
    final OrderedReplies outbox = new OrderedReplies();
    /// Hears that others want its room.
    final ActorRef<EngineEvent> listener;
    /// Most bytes of its state on the device.
    long bytes;
    /// Whether it waits for a place there.
    boolean waits;
    /// Copies of its state that are being written.
    int copies;
    private final Deque<QueuedOperation> entries = new ArrayDeque<>();

    RunQueue(RunConfig config, ResidentRun held, ActorRef<EngineEvent> listener, long bytes) {
        this.config = config;
        this.listener = listener;
        this.bytes = bytes;
        this.held = held;
    }

    void add(QueuedOperation entry) {
        entries.add(entry);
    }

    /// The first entry, if the device can do it now or it has failed.
    ///
    /// @param copyLimit most copies being written
    Optional<QueuedOperation> next(int copyLimit) {
        QueuedOperation first = entries.peek();
        if (first == null || !first.decided()) return Optional.empty();
        boolean copy = first.copies();
        if (copy && copies >= copyLimit) return Optional.empty();
        return Optional.of(first);
    }

    /// The first entry is done.
    void remove(QueuedOperation first) {
        Require.require(entries.poll() == first, "an entry was done out of order");
    }

    /// All entries, which will not be done.
    List<QueuedOperation> clear() {
        List<QueuedOperation> all = List.copyOf(entries);
        entries.clear();
        return all;
    }

    /// Whether it has nothing to do and nothing under way.
    boolean idle() {
        return entries.isEmpty() && copies == 0;
    }

    /// The first of the first `count` entries whose preparation has not begun.
    Optional<QueuedOperation> toPrepare(int count) {
        int i = 0;
        for (QueuedOperation entry : entries) {
            if (i++ == count) break;
            if (!entry.begun) return Optional.of(entry);
        }
        return Optional.empty();
    }

    /// Preparation begins.
    void begin(QueuedOperation entry) {
        entry.begun = true;
    }
}
