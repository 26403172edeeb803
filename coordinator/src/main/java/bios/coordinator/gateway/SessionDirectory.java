package bios.coordinator.gateway;

import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// Reaches the entity of a client session, wherever it lives.
@FunctionalInterface
public interface SessionDirectory {
    /// Asks the entity of `session`; fails with [java.util.concurrent.TimeoutException] when
    /// no answer comes in time.
    CompletionStage<SessionReply> ask(String session,
            Function<ActorRef<SessionReply>, SessionCommand> message, Duration timeout);
}
