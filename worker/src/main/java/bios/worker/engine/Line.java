package bios.worker.engine;

import bios.protocol.Fault;
import bios.protocol.Require;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.RunConfig;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// An open run as the actor knows it: what it still has to do, strictly in order, and
/// what it still has to say.
final class Line {
    final RunConfig config;
    final Held held;
    final Outbox outbox = new Outbox();
    /// Hears that others want its room.
    final ActorRef<EngineEvent> listener;
    /// Most bytes of its state on the device.
    long bytes;
    /// Whether it waits for a place there.
    boolean waits;
    /// Copies of its state that are being written.
    int copies;
    private final Deque<Entry> entries = new ArrayDeque<>();

    Line(RunConfig config, Held held, ActorRef<EngineEvent> listener, long bytes) {
        this.config = config;
        this.listener = listener;
        this.bytes = bytes;
        this.held = held;
    }

    /// Something that the run has to do.
    static final class Entry {
        final EngineCommand command;
        final long position;
        final Outbox.Slot slot;
        private boolean begun;
        private Optional<Deed> deed = Optional.empty();
        private Optional<Fault> fault = Optional.empty();
        /// Bytes of the Java heap that [Intake] has set aside for it.
        long heap;
        /// The same for the copy that is made for it.
        long copy;

        Entry(EngineCommand command, long position, Outbox.Slot slot) {
            this.command = command;
            this.position = position;
            this.slot = slot;
        }

        /// All that the device needs for it is in memory.
        void prepared(Deed ready) {
            deed = Optional.of(ready);
        }

        /// It cannot be done.
        void failed(Fault why) {
            fault = Optional.of(why);
        }

        Optional<Fault> fault() {
            return fault;
        }

        Deed deed() {
            return deed.orElseThrow();
        }
    }

    void add(Entry entry) {
        entries.add(entry);
    }

    /// The first entry, if the device can do it now or it has failed.
    ///
    /// @param copyLimit most copies being written
    Optional<Entry> next(int copyLimit) {
        Entry first = entries.peek();
        if (first == null || first.deed.isEmpty() && first.fault.isEmpty()) return Optional.empty();
        boolean copy = first.deed.filter(d -> d instanceof Deed.Copy).isPresent();
        if (copy && copies >= copyLimit) return Optional.empty();
        return Optional.of(first);
    }

    /// The first entry is done.
    void remove(Entry first) {
        Require.require(entries.poll() == first, "an entry was done out of order");
    }

    /// All entries, which will not be done.
    List<Entry> clear() {
        List<Entry> all = List.copyOf(entries);
        entries.clear();
        return all;
    }

    /// Whether it has nothing to do and nothing under way.
    boolean idle() {
        return entries.isEmpty() && copies == 0;
    }

    /// The first of the first `count` entries whose preparation has not begun.
    Optional<Entry> toPrepare(int count) {
        int i = 0;
        for (Entry entry : entries) {
            if (i++ == count) break;
            if (!entry.begun) return Optional.of(entry);
        }
        return Optional.empty();
    }

    /// Preparation begins.
    void begin(Entry entry) {
        entry.begun = true;
    }
}
