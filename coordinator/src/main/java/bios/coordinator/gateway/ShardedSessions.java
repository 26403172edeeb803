package bios.coordinator.gateway;

import bios.coordinator.StoredEntities;
import bios.coordinator.session.SessionSharding;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;

/// Sends commands to sessions through cluster sharding, which must be started on this node. Commands of
/// sessions are idempotent.
public final class ShardedSessions implements SessionDirectory {
    private final ActorSystem<?> system;
    private final RequestMemory memory;

    /// @param system whose sharding is used
    /// @param memory for replies that are larger than a frame
    public ShardedSessions(ActorSystem<?> system, RequestMemory memory) {
        this.system = system;
        this.memory = memory;
    }

    @Override public CompletionStage<SessionReply> ask(String session,
            Function<ActorRef<SessionReply>, SessionCommand> message, Duration timeout) {
        if (message.apply(system.ignoreRef()) instanceof SessionCommand.Open)
            return send(session, message, timeout);
        return StoredEntities.get(system).exists(SessionSharding.persistenceId(session)).thenCompose(exists ->
                exists ? send(session, message, timeout)
                        : CompletableFuture.completedStage(SessionSharding.UNKNOWN));
    }

    private CompletionStage<SessionReply> send(String session,
            Function<ActorRef<SessionReply>, SessionCommand> message, Duration timeout) {
        var entity = SessionSharding.ref(system, session);
        return AskRetry.ask(timeout, attempt ->
                AskRetry.onDispatcher(entity.ask(message::apply, attempt), system, memory));
    }
}
