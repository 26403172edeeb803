package bios.coordinator.gateway;

import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// Sends commands to the entity of a client session on any node.
@FunctionalInterface
public interface SessionDirectory {
    /// Asks the entity of `session`; fails with [java.util.concurrent.TimeoutException] if no reply arrives
    /// in time.
    CompletionStage<SessionReply> ask(String session,
            Function<ActorRef<SessionReply>, SessionCommand> message, Duration timeout);
}
