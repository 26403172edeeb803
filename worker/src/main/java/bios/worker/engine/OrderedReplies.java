package bios.worker.engine;

import bios.protocol.engine.EngineCommand.EngineEvent;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// Events of one run on their way to its entity, in the order of the run's line: a save is reported when its
/// blobs are durable, and what was executed meanwhile waits behind it. A recovery point waits for those
/// before it and makes nobody wait.
final class OrderedReplies {
    private final Deque<Slot> slots = new ArrayDeque<>();

    /// The place of an event that is still to come.
    static final class Slot {
        private final ActorRef<EngineEvent> to;
        private final boolean patient;
        private Optional<EngineEvent> event = Optional.empty();
        private long workedNanos;

        private Slot(ActorRef<EngineEvent> to, boolean patient) {
            this.to = to;
            this.patient = patient;
        }

        /// The device has worked for it.
        void worked(long nanos) {
            workedNanos += nanos;
        }

        private void send(EngineEvent done) {
            if (done instanceof EngineEvent.Executed(var run, var position, _))
                to.tell(new EngineEvent.Measured(run, position, workedNanos));
            to.tell(done);
        }
    }

    /// Keeps a place.
    ///
    /// @param overtaken whether later events may go first
    Slot place(ActorRef<EngineEvent> to, boolean overtaken) {
        var slot = new Slot(to, overtaken);
        slots.add(slot);
        return slot;
    }

    /// Fills a place, and sends all that need not wait.
    void fill(Slot slot, EngineEvent event) {
        slot.event = Optional.of(event);
        for (Iterator<Slot> each = slots.iterator(); each.hasNext(); ) {
            Slot next = each.next();
            if (next.event.isPresent()) {
                next.send(next.event.get());
                each.remove();
            } else if (!next.patient) return;
        }
    }
}
