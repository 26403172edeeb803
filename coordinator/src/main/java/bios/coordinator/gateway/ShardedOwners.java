package bios.coordinator.gateway;

import bios.coordinator.StoredEntities;
import bios.coordinator.owner.OwnerSharding;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;

/// Sends commands to accounts through cluster sharding, which must be started on this node. Commands of
/// accounts are idempotent, but for an entry of the audit log without a key, which may then be there twice.
public final class ShardedOwners implements OwnerDirectory {
    private final ActorSystem<?> system;
    private final RequestMemory memory;

    /// @param system whose sharding is used
    /// @param memory for replies that are larger than a frame
    public ShardedOwners(ActorSystem<?> system, RequestMemory memory) {
        this.system = system;
        this.memory = memory;
    }

    @Override public CompletionStage<OwnerReply> ask(String account,
            Function<ActorRef<OwnerReply>, OwnerCommand> message, Duration timeout) {
        return switch (message.apply(system.ignoreRef())) {
            case OwnerCommand.CountSampling _, OwnerCommand.Record _ -> send(account, message, timeout);
            case OwnerCommand.GetAudit _ -> ifKnown(account, message, timeout,
                    new OwnerReply.Audit(List.of(), 0));
            case OwnerCommand.GetUsage _ -> ifKnown(account, message, timeout,
                    new OwnerReply.Sampled(List.of(), List.of()));
        };
    }

    private CompletionStage<OwnerReply> ifKnown(String account,
            Function<ActorRef<OwnerReply>, OwnerCommand> message, Duration timeout, OwnerReply none) {
        return StoredEntities.get(system).exists(OwnerSharding.persistenceId(account)).thenCompose(exists ->
                exists ? send(account, message, timeout) : CompletableFuture.completedStage(none));
    }

    private CompletionStage<OwnerReply> send(String account,
            Function<ActorRef<OwnerReply>, OwnerCommand> message, Duration timeout) {
        var entity = OwnerSharding.ref(system, account);
        return AskRetry.ask(timeout, attempt ->
                AskRetry.onDispatcher(entity.ask(message::apply, attempt), system, memory));
    }

    /// Sends a batch of finished sampling requests.
    public CompletionStage<OwnerReply> count(String account, OwnerCommand.CountSampling batch) {
        return ask(account, replyTo -> new OwnerCommand.CountSampling(batch.writer(), batch.number(),
                batch.uses(), batch.nowMillis(), replyTo), AskRetry.ATTEMPT);
    }
}
