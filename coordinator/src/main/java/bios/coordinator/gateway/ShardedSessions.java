package bios.coordinator.gateway;

import bios.coordinator.session.SessionSharding;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;

/// Sends commands to sessions through cluster sharding, which must be started on this node. Commands of
/// sessions are idempotent.
public final class ShardedSessions implements SessionDirectory {
    private final ActorSystem<?> system;

    /// @param system whose sharding is used
    public ShardedSessions(ActorSystem<?> system) {
        this.system = system;
    }

    @Override public CompletionStage<SessionReply> ask(String session,
            Function<ActorRef<SessionReply>, SessionCommand> message, Duration timeout) {
        var entity = SessionSharding.ref(system, session);
        return AskRetry.ask(timeout, attempt ->
                AskRetry.onDispatcher(entity.ask(message::apply, attempt), system));
    }
}
