package bios.coordinator.run;

import bios.coordinator.run.RunEvent.Noted;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunNote;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.LongFunction;
import org.apache.pekko.actor.typed.ActorRef;

/// The ways in which a run goes: it is unloaded for good, it leaves this node for another, or it rests
/// because nobody asks. Belongs to one actor.
final class Departure {
    private final RunContext context;
    private final EngineLine line;
    private final EngineCopy copy;
    private final Waiters waiters;
    private final List<ActorRef<RunReply>> unloading = new ArrayList<>();
    private boolean leaving;
    private boolean resting;

    Departure(RunContext context, EngineLine line, EngineCopy copy, Waiters waiters) {
        this.context = context;
        this.line = line;
        this.copy = copy;
        this.waiters = waiters;
    }

    /// Unloads it as soon as all that was accepted is finished; see [Internal.Close].
    Next unload(TrainingRun run, ActorRef<RunReply> replyTo) {
        if (run.closed()) return new Next.Reply(replyTo, new RunReply.Done());
        unloading.add(replyTo);
        context.tell(new Internal.Close());
        return new Next.Rest();
    }

    /// Whether it is being unloaded: nothing more is accepted.
    boolean unloading() {
        return !unloading.isEmpty();
    }

    /// It is unloaded.
    void unloaded() {
        unloading.forEach(replyTo -> replyTo.tell(new RunReply.Done()));
        unloading.clear();
    }

    /// Has it leave this node, which ends with [Internal.Left]. Whoever waits asks again, and is answered
    /// where the run comes back.
    ///
    /// @param pending what is told to who waits for a request
    Next leave(LongFunction<RunReply> pending) {
        if (leaving) return new Next.Rest();
        leaving = true;
        if (copy.opened() && !resting) context.note(RunNote.Kind.DRAINING, Optional.empty(), Map.of());
        line.depart();
        context.after(context.settings().leaveWithin(), "leave", new Internal.Left());
        waiters.answerAll(pending);
        return new Next.Advance();
    }

    /// Whether it leaves, to rest or for another node.
    boolean leaving() {
        return leaving;
    }

    /// The line has nothing to do: whoever waits for that goes on.
    ///
    /// @param storing whether something is on its way into the journal
    void atRest(TrainingRun run, boolean storing) {
        if (unloading()) context.tell(new Internal.Close());
        if (leaving && line.departed(run) && !storing) context.tell(new Internal.Left());
    }

    /// A recovery point is lost: it does not wait for another.
    void pointLost() {
        if (leaving) context.tell(new Internal.Left());
    }

    /// Nobody needs it: it leaves memory, and its history says so if it was in the engine.
    ///
    /// @param sharded whether there is a shard that lets it go
    Next passivate(boolean sharded) {
        if (!copy.opened() || !sharded) return new Next.Passivate(List.of());
        context.meter().passivated();
        return new Next.Passivate(List.of(new Noted(
                context.noted(RunNote.Kind.PASSIVATED, Optional.empty(), Map.of()))));
    }

    /// Its shard is asked to let it go.
    void rests() {
        resting = true;
    }

    /// Whether it is on its way to rest; otherwise, if it leaves, it moves.
    boolean resting() {
        return resting;
    }
}
