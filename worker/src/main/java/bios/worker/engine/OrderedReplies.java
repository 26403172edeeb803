package bios.worker.engine;

import bios.protocol.engine.EngineCommand.EngineEvent;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.Optional;
import java.util.function.LongConsumer;
import org.apache.pekko.actor.typed.ActorRef;

/// Sends the events of one run in the order of its operations: a save is reported when its blobs are durable,
/// and events of later operations wait for it. The event of a recovery point waits for those before it and
/// delays none.
///
/// An operation counts as executed when its event is sent: a save that was copied and not written has to be
/// executed again, and what is behind it is not known to anybody. Nothing counts behind a failure, which is
/// an outcome only when it is stored: what follows it may have to be executed again from another state.
final class OrderedReplies {
    private final LongConsumer executed;
    private final Deque<Place> places = new ArrayDeque<>();
    private boolean failed;

    /// @param executed records that all operations up to a position were executed to their end; called before
    ///     the entity is told
    OrderedReplies(LongConsumer executed) {
        this.executed = executed;
    }

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

    }

    private void send(Place place, EngineEvent ready) {
        failed |= ready instanceof EngineEvent.Failed;
        if (ready instanceof EngineEvent.Executed(var run, var position, _)) {
            if (!failed) executed.accept(position);
            place.to.tell(new EngineEvent.Measured(run, position, place.deviceNanos));
        }
        place.to.tell(ready);
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
                send(next, next.event.get());
                each.remove();
            } else if (!next.overtaken) return;
        }
    }
}
