package bios.coordinator.run;

import bios.protocol.checkpoint.BlobScope;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.javadsl.Behaviors;

/// The entity's connection to the engine: sends commands, and adds to each event of the engine the epoch of
/// the session that requested it. Belongs to one actor.
///
/// Each session has a child actor as its reply address. A message adapter is not sufficient: an actor has
/// only one per message class, so events of an old session could not be told from those of the current one.
final class EngineSession {
    private final RunContext context;
    private ActorRef<EngineEvent> replyTo;

    EngineSession(RunContext context) {
        this.context = context;
    }

    /// Starts a session and stops the reply address of the session before.
    void start(long epoch) {
        if (replyTo != null) context.actor().stop(replyTo);
        var self = context.actor().getSelf();
        replyTo = context.actor().spawnAnonymous(Behaviors.receiveMessage(event -> {
            self.tell(new SelfMessage.Step(new RunInput.FromEngine(epoch, event)));
            return Behaviors.same();
        }));
    }

    /// @param incarnation of this entity, see [BlobScope]
    void open(TrainingRun run, long incarnation) {
        var config = run.config().orElseThrow();
        tell(new EngineCommand.OpenRun(config, run.recovery().lora().orElse(config.lora()),
                run.recovery().state(), replyTo, incarnation));
    }

    void close() {
        tell(new EngineCommand.CloseRun(context.id()));
    }

    void execute(RunEffect.Execute effect) {
        PendingOperation operation = effect.operation();
        tell(new EngineCommand.Execute(context.id(), operation.position(), operation.executed(),
                effect.loaded(), operation.acceptedAtMillis(), effect.alone(), replyTo));
    }

    void takeRecoveryPoint(long position) {
        tell(new EngineCommand.TakeRecoveryPoint(context.id(), position, replyTo));
    }

    private void tell(EngineCommand command) {
        context.environment().engine().tell(command);
    }
}
