package bios.coordinator.gateway;

import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// Sends commands to the entity of an account on any node.
@FunctionalInterface
public interface OwnerDirectory {
    /// Asks the entity of `account`; fails with [java.util.concurrent.TimeoutException] if no reply arrives
    /// in time.
    CompletionStage<OwnerReply> ask(String account, Function<ActorRef<OwnerReply>, OwnerCommand> message,
            Duration timeout);
}
