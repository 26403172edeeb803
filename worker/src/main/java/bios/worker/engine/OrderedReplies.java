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
    private final Deque<Place> places = new ArrayDeque<>();

    /// The place of one event in the order.
    static final class Place {
        private final ActorRef<EngineEvent> to;
        private final boolean overtaken;
        private Optional<EngineEvent> event = Optional.empty();
        private long deviceNanos;

        private Place(ActorRef<EngineEvent> to, boolean overtaken) {
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
    Place reserve(ActorRef<EngineEvent> to, boolean overtaken) {
        var place = new Place(to, overtaken);
        places.add(place);
        return place;
    }

    /// Sets the event of a place, and sends all events that wait for no other.
    void complete(Place place, EngineEvent event) {
        place.event = Optional.of(event);
        for (Iterator<Place> each = places.iterator(); each.hasNext(); ) {
            Place next = each.next();
            if (next.event.isPresent()) {
                next.send(next.event.get());
                each.remove();
            } else if (!next.overtaken) return;
        }
    }
}
