package bios.coordinator.run;

import bios.coordinator.run.RunEvent.OperationFailed;
import bios.protocol.run.RunCommand.RunReply;
import java.util.List;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// What the entity of a run does next, as one of its parts has judged. [TrainingRunEntity] makes an effect of
/// it.
sealed interface Next {
    /// Nothing, until something happens.
    record Rest() implements Next {}

    /// Ask the line what comes.
    record Advance() implements Next {}

    /// Keep a recovery point that may be kept by now.
    record KeepPoint() implements Next {}

    /// Keep it, and ask the line.
    record Go() implements Next {}

    /// Store these; what follows from them is done then.
    record Store(List<RunEvent> events) implements Next {}

    /// Store that an operation failed. If that `poisons` those behind it and the engine was given one of
    /// them, the engine's copy is begun again.
    record StoreFailure(OperationFailed failed, boolean poisons) implements Next {}

    /// Store these, do what follows from them, then answer.
    ///
    /// @param reply what is answered, of the run as it is then
    record StoreAndReply(List<RunEvent> events, ActorRef<RunReply> to, Function<TrainingRun, RunReply> reply)
            implements Next {}

    /// Answer.
    record Reply(ActorRef<RunReply> to, RunReply reply) implements Next {}

    /// Nothing is left to do: leave memory.
    ///
    /// @param events what is stored before
    record Passivate(List<RunEvent> events) implements Next {}
}
