package bios.coordinator.run;

import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.RunNote;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.javadsl.Behaviors;

/// The engine's copy of a run: opened, worked with, closed, and, when it is lost, begun again under a new
/// epoch. Belongs to one actor.
final class EngineCopy {
    private static final int OPEN_ATTEMPTS = 5;

    private final RunContext context;
    private final EngineLine line;
    /// Who takes turns with others when it tries operations alone.
    private final Object who;
    private ActorRef<EngineEvent> listener;
    private long epoch;
    private boolean opening;
    private boolean opened;
    private int openAttempts;
    private Optional<Fault> stalled = Optional.empty();

    /// @param who whose turn it is in [Solo]
    EngineCopy(RunContext context, EngineLine line, Object who) {
        this.context = context;
        this.line = line;
        this.who = who;
    }

    /// Counts the copies: what is said of an earlier one is not heard.
    long epoch() {
        return epoch;
    }

    /// Whether the engine was asked to open the run, and has neither refused nor closed it.
    boolean opened() {
        return opened;
    }

    /// Why the run cannot be opened, while that is so.
    Optional<Fault> stalled() {
        return stalled;
    }

    /// Begins a copy: forgets what the engine was given.
    ///
    /// @param failed as of [EngineLine#restart]
    /// @param cause what the metrics call it
    void begin(TrainingRun run, boolean failed, String cause) {
        List<Entry> again = run.line().stream().filter(e -> !e.settled()).toList();
        context.meter().restarted(cause, again.size(), again.isEmpty() ? 0 : again.getLast().position());
        epoch++;
        opening = false;
        // Its events are not heard any more: it must not stay there unheard.
        close();
        if (listener != null) context.actor().stop(listener);
        long own = epoch;
        var self = context.actor().getSelf();
        listener = context.actor().spawnAnonymous(Behaviors.receiveMessage(event -> {
            self.tell(new Internal.FromEngine(own, event));
            return Behaviors.same();
        }));
        line.restart(run, failed);
        context.world().solo().leave(who);
    }

    /// The run is closed for good, and so is its last copy.
    void end(TrainingRun run) {
        epoch++;
        close();
        line.restart(run, false);
        context.world().solo().leave(who);
    }

    /// Opens it, unless that is under way.
    void open(TrainingRun run) {
        if (opening) return;
        opening = true;
        opened = true;
        var config = run.config().orElseThrow();
        tell(new EngineCommand.OpenRun(config, run.recovery().lora().orElse(config.lora()),
                run.recovery().state(), listener));
    }

    void close() {
        if (opened) tell(new EngineCommand.CloseRun(context.id()));
        opened = false;
    }

    void execute(EngineLine.Step.Send send) {
        Entry entry = send.entry();
        tell(new EngineCommand.Execute(context.id(), entry.position(), entry.operation(), send.loaded(),
                entry.acceptedAtMillis(), listener));
    }

    /// Asks for a recovery point at `position`.
    void takePoint(long position) {
        context.meter().pointOrdered();
        tell(new EngineCommand.TakeRecoveryPoint(context.id(), position, listener));
    }

    private void tell(EngineCommand command) {
        context.world().engine().tell(command);
    }

    /// The engine holds the run.
    void isOpen(TrainingRun run) {
        opening = false;
        openAttempts = 0;
        line.opened();
        stalled = Optional.empty();
        context.meter().goes();
        noteOpened(run);
    }

    private void noteOpened(TrainingRun run) {
        var notes = new ArrayList<RunNote>();
        run.history().reversed().stream().filter(n -> n.kind() == RunNote.Kind.OPENED)
                .flatMap(n -> n.node().stream()).findFirst().filter(before -> !before.equals(context.node()))
                .ifPresent(before -> {
                    context.meter().moved();
                    notes.add(context.noted(RunNote.Kind.MOVED, Optional.empty(), Map.of("from", before)));
                });
        long point = run.recovery().position();
        notes.add(context.noted(RunNote.Kind.OPENED, Optional.of(point).filter(at -> at > 0),
                Map.of("recovery_point", point == 0 ? "none" : "" + point,
                        "replay", "" + context.meter().again())));
        context.tell(new Internal.Note(notes));
    }

    /// The engine did not open it. Whether it never will: then what the run has accepted fails; otherwise it
    /// is opened again after a while.
    boolean refused(Fault why) {
        opened = false;
        boolean news = !sameCause(stalled, why);
        if (news) context.warn("the engine did not open it, code={}: {}", why.code(), why.message());
        boolean full = why.code().equals("out_of_memory");
        // Others are asked to go meanwhile.
        if (why.kind() == Fault.Kind.SERVER && !(full && ++openAttempts >= OPEN_ATTEMPTS)) {
            context.meter().waits(why);
            if (news) context.note(RunNote.Kind.WAITING, Optional.empty(),
                    Map.of("code", why.code(), "message", why.message()));
            stalled = Optional.of(why);
            reopenAfterAWhile();
            return false;
        }
        opening = false;
        openAttempts = 0;
        return true;
    }

    /// Of too little memory each try says other numbers.
    private static boolean sameCause(Optional<Fault> before, Fault why) {
        return before.filter(b -> b.code().equals(why.code())
                && (b.message().equals(why.message()) || b.code().equals("out_of_memory"))).isPresent();
    }

    /// Begins another copy, which is opened after a while.
    void beginLater(TrainingRun run, boolean failed, String cause) {
        begin(run, failed, cause);
        opening = true;
        reopenAfterAWhile();
    }

    private void reopenAfterAWhile() {
        context.after(context.settings().retryAfter(), "reopen", new Internal.Reopen(epoch));
    }

    /// The while is over.
    void mayReopen(long at) {
        if (at == epoch) opening = false;
    }

    /// The engine has answered for the operation at `position`.
    void finished(long position) {
        boolean tried = line.tries();
        line.finished(position);
        if (tried) context.world().solo().leave(who);
    }
}
