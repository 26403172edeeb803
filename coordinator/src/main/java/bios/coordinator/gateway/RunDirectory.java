package bios.coordinator.gateway;

import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// Sends commands to the entity of a run on any node.
@FunctionalInterface
public interface RunDirectory {
    /// Asks the entity of `run`; fails with [java.util.concurrent.TimeoutException] if no reply arrives in
    /// time.
    CompletionStage<RunReply> ask(RunId run, Function<ActorRef<RunReply>, RunCommand> message,
            Duration timeout);
}
