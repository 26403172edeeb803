package bios.coordinator.gateway;

import bios.coordinator.run.RunSettings;
import bios.coordinator.run.TrainingRunSharding;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.sharding.typed.javadsl.EntityRef;
import org.apache.pekko.cluster.typed.Cluster;

/// Runs behind cluster sharding. The gateway asks only for runs of base models that some worker has served,
/// so that the proxies begun here are few.
public final class ShardedRuns implements RunDirectory {
    private final ActorSystem<?> system;
    private final RunSettings settings;
    private static final Duration SLICE = Duration.ofSeconds(3);
    /// How much later than its slice an answer may come.
    private static final Duration GRACE = Duration.ofSeconds(1);
    private final Set<String> begun = ConcurrentHashMap.newKeySet();

    /// @param settings as the workers have them: the number of shards must be the same everywhere
    public ShardedRuns(ActorSystem<?> system, RunSettings settings) {
        this.system = system;
        this.settings = settings;
    }

    @Override public CompletionStage<RunReply> ask(RunId run,
            Function<ActorRef<RunReply>, RunCommand> message, Duration timeout) {
        begin(run.slug());
        EntityRef<RunCommand> entity = TrainingRunSharding.ref(system, run);
        return switch (message.apply(system.ignoreRef())) {
            // Deleted twice, a checkpoint is not found.
            case RunCommand.DeleteCheckpoint _ -> entity.ask(message::apply, timeout);
            case RunCommand.Retrieve retrieve -> retrieve(entity, retrieve, timeout);
            default -> Repeated.ask(timeout, attempt -> straight(entity.ask(message::apply, attempt)));
        };
    }

    /// Waits in slices, so that no wait stays with a node that has died.
    private CompletionStage<RunReply> retrieve(EntityRef<RunCommand> entity, RunCommand.Retrieve wanted,
            Duration timeout) {
        Duration slice = Duration.ofMillis(Math.min(wanted.waitMillis(), SLICE.toMillis()));
        long wait = wanted.waitMillis() - slice.toMillis();
        return straight(entity.<RunReply>ask(replyTo -> new RunCommand.Retrieve(wanted.owner(), wanted.seq(),
                slice.toMillis(), replyTo), slice.plus(GRACE))).handle((reply, failed) -> {
                    Duration rest = timeout.minus(failed == null ? slice : slice.plus(GRACE));
                    boolean again = failed == null ? reply instanceof RunReply.Pending && wait > 0
                            : Backend.cause(failed) instanceof TimeoutException && rest.isPositive();
                    if (again) return retrieve(entity, new RunCommand.Retrieve(wanted.owner(), wanted.seq(),
                            wait, wanted.replyTo()), rest);
                    return failed == null ? CompletableFuture.completedStage(reply)
                            : CompletableFuture.<RunReply>failedStage(failed);
                }).thenCompose(Function.identity());
    }

    private <T> CompletionStage<T> straight(CompletionStage<T> asked) {
        return Repeated.straight(asked, system);
    }

    /// Lets this node reach the runs of a base model. Where it serves the model itself, the program has
    /// begun the sharding.
    public void begin(String slug) {
        if (begun.contains(slug)) return;
        if (!Cluster.get(system).selfMember().hasRole(TrainingRunSharding.role(slug)))
            TrainingRunSharding.initProxy(system, slug, settings);
        begun.add(slug);
    }
}
