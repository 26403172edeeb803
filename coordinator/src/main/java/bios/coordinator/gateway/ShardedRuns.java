package bios.coordinator.gateway;

import bios.coordinator.StoredEntities;
import bios.coordinator.run.RunSettings;
import bios.coordinator.run.TrainingRunSharding;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobScope;
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
import java.util.function.Predicate;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.sharding.typed.javadsl.EntityRef;
import org.apache.pekko.cluster.typed.Cluster;

/// Sends commands to runs through cluster sharding. Only runs of base models that a worker has served are
/// addressed, which bounds the number of shard proxies.
public final class ShardedRuns implements RunDirectory {
    private final ActorSystem<?> system;
    private final RunSettings settings;
    private static final Duration POLL_SLICE = Duration.ofSeconds(3);
    /// How much later than the end of its slice a reply may arrive.
    private static final Duration GRACE = Duration.ofSeconds(1);
    private static final Duration KEEP_LIMIT = Duration.ofSeconds(15);
    private final Predicate<String> host;
    private final Set<String> started = ConcurrentHashMap.newKeySet();

    /// Runs that are hosted on the nodes with the role of their base model.
    public ShardedRuns(ActorSystem<?> system, RunSettings settings) {
        this(system, settings, slug ->
                Cluster.get(system).selfMember().hasRole(TrainingRunSharding.role(slug)));
    }

    /// @param settings those of the workers: the number of shards must be the same on all nodes
    /// @param host hosts the runs of a slug on this node, or says false: they are hosted elsewhere
    public ShardedRuns(ActorSystem<?> system, RunSettings settings, Predicate<String> host) {
        this.system = system;
        this.host = host;
        this.settings = settings;
    }

    @Override public CompletionStage<RunReply> ask(RunId run,
            Function<ActorRef<RunReply>, RunCommand> message, Duration timeout) {
        startProxy(run.slug());
        RunCommand command = message.apply(system.ignoreRef());
        if (command instanceof RunCommand.Create) return send(run, command, message, timeout);
        return StoredEntities.get(system).exists(TrainingRunSharding.persistenceId(run)).thenCompose(exists ->
                exists ? send(run, command, message, timeout)
                        : CompletableFuture.completedStage(TrainingRunSharding.unknown(run)));
    }

    private CompletionStage<RunReply> send(RunId run, RunCommand command,
            Function<ActorRef<RunReply>, RunCommand> message, Duration timeout) {
        EntityRef<RunCommand> entity = TrainingRunSharding.ref(system, run);
        return switch (command) {
            // Not idempotent: a repeated deletion is answered with not found.
            case RunCommand.DeleteCheckpoint _ -> entity.ask(message::apply, timeout);
            case RunCommand.Retrieve retrieve -> retrieve(entity, retrieve, timeout);
            default -> AskRetry.ask(timeout, attempt -> onDispatcher(entity.ask(message::apply, attempt)));
        };
    }

    /// Tells the run of weights that they are in use.
    public CompletionStage<RunReply> keepWeights(String owner, BlobId adapter, boolean loaded) {
        return ask(BlobScope.run(adapter), replyTo ->
                new RunCommand.KeepWeights(owner, adapter, loaded, replyTo), KEEP_LIMIT);
    }

    /// Waits in short slices, so that a wait survives the death of the node that it was sent to.
    private CompletionStage<RunReply> retrieve(EntityRef<RunCommand> entity, RunCommand.Retrieve wanted,
            Duration timeout) {
        Duration slice = Duration.ofMillis(Math.min(wanted.waitMillis(), POLL_SLICE.toMillis()));
        long wait = wanted.waitMillis() - slice.toMillis();
        return onDispatcher(entity.<RunReply>ask(replyTo ->
                new RunCommand.Retrieve(wanted.owner(), wanted.seq(),
                slice.toMillis(), replyTo), slice.plus(GRACE))).handle((reply, failed) -> {
                    Duration rest = timeout.minus(failed == null ? slice : slice.plus(GRACE));
                    boolean again = failed == null ? reply instanceof RunReply.Pending && wait > 0
                            : GatewayServices.cause(failed) instanceof TimeoutException && rest.isPositive();
                    if (again) return retrieve(entity, new RunCommand.Retrieve(wanted.owner(), wanted.seq(),
                            wait, wanted.replyTo()), rest);
                    return failed == null ? CompletableFuture.completedStage(reply)
                            : CompletableFuture.<RunReply>failedStage(failed);
                }).thenCompose(Function.identity());
    }

    private <T> CompletionStage<T> onDispatcher(CompletionStage<T> reply) {
        return AskRetry.onDispatcher(reply, system);
    }

    /// Starts the shard proxy of a base model, unless this node serves the model and hosts its shards.
    public void startProxy(String slug) {
        if (started.contains(slug)) return;
        if (!host.test(slug)) TrainingRunSharding.initProxy(system, slug, settings);
        started.add(slug);
    }
}
