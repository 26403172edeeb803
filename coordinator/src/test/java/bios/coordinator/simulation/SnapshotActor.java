package bios.coordinator.simulation;

import org.apache.pekko.actor.AbstractActor;
import org.apache.pekko.persistence.SnapshotProtocol;

/// The snapshot plugin of a simulated actor system; see [JournalActor].
public final class SnapshotActor extends AbstractActor {
    private final EventLoop loop = EventLoop.of(getContext().getSystem().name());

    @Override public Receive createReceive() {
        return receiveBuilder()
                .match(SnapshotProtocol.SaveSnapshot.class, save -> journal().save(save, getSender()))
                .match(SnapshotProtocol.LoadSnapshot.class, load -> journal().load(load, getSender()))
                .match(SnapshotProtocol.DeleteSnapshots.class, delete -> journal().delete(delete))
                .matchAny(_ -> {}).build();
    }

    private Journal journal() {
        return loop.current(SimulatedCluster.class).journal;
    }
}
