package bios.coordinator.gateway;

import bios.coordinator.owner.OwnerRecords;
import bios.coordinator.owner.OwnerEvent;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// Accounts in memory.
final class FakeOwners implements OwnerDirectory {
    private static final int MOST_ENTRIES = 100;
    private final Map<String, OwnerRecords> owners = new HashMap<>();

    @Override public synchronized CompletionStage<OwnerReply> ask(String account,
            Function<ActorRef<OwnerReply>, OwnerCommand> message, Duration timeout) {
        OwnerRecords owner = owners.getOrDefault(account, OwnerRecords.NONE);
        return CompletableFuture.completedStage(switch (message.apply(null)) {
            case OwnerCommand.CountSampling c -> applied(account, owner,
                    owner.count(c.writer(), c.number(), c.uses(), c.nowMillis()));
            case OwnerCommand.Record(var entry, var key, _) -> applied(account, owner,
                    owner.record(new OwnerEvent.Recorded(entry, key)));
            case OwnerCommand.GetAudit(var skip, var limit, _) -> new OwnerReply.Audit(
                    owner.audit().reversed().stream().skip(skip).limit(limit)
                            .map(OwnerEvent.Recorded::entry).toList(), owner.audit().size());
            case OwnerCommand.GetUsage _ -> new OwnerReply.Sampled(owner.totals(), owner.hours());
        });
    }

    private OwnerReply applied(String account, OwnerRecords owner, Optional<? extends OwnerEvent> event) {
        event.ifPresent(e -> owners.put(account, owner.apply(e, MOST_ENTRIES)));
        return new OwnerReply.Done();
    }
}
