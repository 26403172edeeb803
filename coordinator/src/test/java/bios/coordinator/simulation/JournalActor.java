package bios.coordinator.simulation;

import org.apache.pekko.actor.AbstractActor;
import org.apache.pekko.persistence.JournalProtocol;

/// The journal plugin of a simulated actor system: forwards every request to the [Journal] of the current
/// history.
public final class JournalActor extends AbstractActor {
    private final EventLoop loop = EventLoop.of(getContext().getSystem().name());

    @Override public Receive createReceive() {
        return receiveBuilder()
                .match(JournalProtocol.WriteMessages.class, write -> journal().write(write))
                .match(JournalProtocol.ReplayMessages.class, replay -> journal().replay(replay))
                .match(JournalProtocol.DeleteMessagesTo.class, delete -> journal().delete(delete)).build();
    }

    private Journal journal() {
        return loop.current(SimulatedCluster.class).journal;
    }
}
