package bios.worker.engine;

import bios.protocol.engine.EngineCommand.EngineEvent;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// Sends the events of one run in the order of its operations: a save is reported when its blobs are durable,
/// and events of later operations wait for it. The event of a recovery point waits for those before it and
/// delays none.
final class OrderedReplies {
    private final Deque<Slot> slots = new ArrayDeque<>();

    /// The place of one event in the order.
    static final class Slot {
        private final ActorRef<EngineEvent> to;
        private final boolean overtaken;
        private Optional<EngineEvent> event = Optional.empty();
        private long deviceNanos;

        private Slot(ActorRef<EngineEvent> to, boolean overtaken) {
            this.to = to;
            this.overtaken = overtaken;
        }

        /// Adds time that the device has worked for the operation.
        void addDeviceNanos(long nanos) {
            deviceNanos += nanos;
        }

        private void send(EngineEvent ready) {
            if (ready instanceof EngineEvent.Executed(var run, var position, _))
                to.tell(new EngineEvent.Measured(run, position, deviceNanos));
            to.tell(ready);
        }
    }

    /// Reserves the next place.
    ///
    /// @param overtaken whether later events may be sent first
    Slot reserve(ActorRef<EngineEvent> to, boolean overtaken) {
        var slot = new Slot(to, overtaken);
        slots.add(slot);
        return slot;
    }

    /// Sets the event of a place, and sends all events that wait for no other.
    void complete(Slot slot, EngineEvent event) {
        slot.event = Optional.of(event);
        for (Iterator<Slot> each = slots.iterator(); each.hasNext(); ) {
            Slot next = each.next();
            if (next.event.isPresent()) {
                next.send(next.event.get());
                each.remove();
            } else if (!next.overtaken) return;
        }
    }
}
