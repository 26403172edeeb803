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
    private final RequestMemory memory;
    private static final Duration POLL_SLICE = Duration.ofSeconds(3);
    /// Longer: those who follow a run may wait for days.
    private static final Duration FOLLOW_SLICE = Duration.ofSeconds(10);
    /// How much later than the end of its slice a reply may arrive.
    private static final Duration GRACE = Duration.ofSeconds(1);
    private static final Duration KEEP_LIMIT = Duration.ofSeconds(15);
    private final Predicate<String> host;
    private final Set<String> started = ConcurrentHashMap.newKeySet();

    /// Runs that are hosted on the nodes with the role of their base model.
    public ShardedRuns(ActorSystem<?> system, RunSettings settings, RequestMemory memory) {
        this(system, settings, memory, slug ->
                Cluster.get(system).selfMember().hasRole(TrainingRunSharding.role(slug)));
    }

    /// @param settings those of the workers: the number of shards must be the same on all nodes
    /// @param memory for replies that are larger than a frame
    /// @param host hosts the runs of a slug on this node, or says false: they are hosted elsewhere
    public ShardedRuns(ActorSystem<?> system, RunSettings settings, RequestMemory memory,
            Predicate<String> host) {
        this.system = system;
        this.host = host;
        this.settings = settings;
        this.memory = memory;
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
            // Nor are these without the number of an operation: the next one may be set aside by then.
            case RunCommand.Retry(_, var seq, _) when seq.isEmpty() -> entity.ask(message::apply, timeout);
            case RunCommand.GiveUp(_, var seq, _) when seq.isEmpty() -> entity.ask(message::apply, timeout);
            case RunCommand.Retrieve(var owner, long seq, long wait, _) -> inSlices(entity, POLL_SLICE, wait,
                    timeout, (slice, replyTo) -> new RunCommand.Retrieve(owner, seq, slice, replyTo),
                    reply -> reply instanceof RunReply.Pending);
            case RunCommand.GetHistory(var owner, long after, long wait, _) when wait > 0 ->
                    inSlices(entity, FOLLOW_SLICE, wait, timeout, (slice, replyTo) ->
                            new RunCommand.GetHistory(owner, after, slice, replyTo), reply ->
                            reply instanceof RunReply.History(var entries) && entries.isEmpty());
            case RunCommand.GetMetrics(var owner, long after, long wait, _) when wait > 0 ->
                    inSlices(entity, FOLLOW_SLICE, wait, timeout, (slice, replyTo) ->
                            new RunCommand.GetMetrics(owner, after, slice, replyTo), reply ->
                            reply instanceof RunReply.Metrics(var operations) && operations.isEmpty());
            default -> AskRetry.ask(timeout, attempt -> onDispatcher(entity.ask(message::apply, attempt)));
        };
    }

    /// Tells the run of weights that they are in use.
    public CompletionStage<RunReply> keepWeights(String owner, BlobId adapter, boolean loaded) {
        return ask(BlobScope.run(adapter), replyTo ->
                new RunCommand.KeepWeights(owner, adapter, loaded, replyTo), KEEP_LIMIT);
    }

    /// A command that waits at the run for this many milliseconds.
    private interface Waiting {
        RunCommand command(long millis, ActorRef<RunReply> replyTo);
    }

    /// Waits in short slices, so that a wait survives the death of the node that it was sent to.
    ///
    /// @param nothing whether a reply says only that the wait is over
    private CompletionStage<RunReply> inSlices(EntityRef<RunCommand> entity, Duration longest,
            long waitMillis, Duration timeout, Waiting question, Predicate<RunReply> nothing) {
        Duration slice = Duration.ofMillis(Math.min(waitMillis, longest.toMillis()));
        long wait = waitMillis - slice.toMillis();
        return onDispatcher(entity.<RunReply>ask(replyTo ->
                question.command(slice.toMillis(), replyTo), slice.plus(GRACE))).handle((reply, failed) -> {
                    Duration rest = timeout.minus(failed == null ? slice : slice.plus(GRACE));
                    boolean again = failed == null ? nothing.test(reply) && wait > 0
                            : GatewayServices.cause(failed) instanceof TimeoutException && rest.isPositive();
                    if (again) return inSlices(entity, longest, wait, rest, question, nothing);
                    return failed == null ? CompletableFuture.completedStage(reply)
                            : CompletableFuture.<RunReply>failedStage(failed);
                }).thenCompose(Function.identity());
    }

    private <T> CompletionStage<T> onDispatcher(CompletionStage<T> reply) {
        return AskRetry.onDispatcher(reply, system, memory);
    }

    /// Starts the shard proxy of a base model, unless this node serves the model and hosts its shards.
    public void startProxy(String slug) {
        if (started.contains(slug)) return;
        if (!host.test(slug)) TrainingRunSharding.initProxy(system, slug, settings);
        started.add(slug);
    }
}
