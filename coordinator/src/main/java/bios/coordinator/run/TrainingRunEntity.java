package bios.coordinator.run;

import static bios.protocol.Require.require;

import bios.coordinator.DamagedEntities;
import bios.coordinator.NodeName;
import bios.coordinator.run.RunEvent.*;
import bios.coordinator.run.TrainingRun.Decision;
import bios.persistence.journal.JournalDamaged;
import bios.persistence.journal.JournalPruning;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.run.AdamParams;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.Operation;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import bios.protocol.wire.Message;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.PostStop;
import org.apache.pekko.actor.typed.PreRestart;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.javadsl.TimerScheduler;
import org.apache.pekko.cluster.sharding.typed.javadsl.ClusterSharding;
import org.apache.pekko.persistence.typed.JournalPersistFailed;
import org.apache.pekko.persistence.typed.JournalPersistRejected;
import org.apache.pekko.persistence.typed.PersistenceId;
import org.apache.pekko.persistence.typed.RecoveryCompleted;
import org.apache.pekko.persistence.typed.RecoveryFailed;
import org.apache.pekko.persistence.typed.SnapshotCompleted;
import org.apache.pekko.persistence.typed.SnapshotFailed;
import org.apache.pekko.persistence.typed.javadsl.CommandHandlerWithReply;
import org.apache.pekko.persistence.typed.javadsl.EffectBuilder;
import org.apache.pekko.persistence.typed.javadsl.EventHandler;
import org.apache.pekko.persistence.typed.javadsl.EventSourcedBehaviorWithEnforcedReplies;
import org.apache.pekko.persistence.typed.javadsl.ReplyEffect;
import org.apache.pekko.persistence.typed.javadsl.SignalHandler;

/// The sharded entity of one [TrainingRun]. [TrainingRun] decides which commands are accepted; [RunScheduler]
/// decides what the engine executes next and everything that depends on it. The entity turns commands and
/// messages into inputs of the scheduler and executes its effects with [RunResults], [RunMaintenance] and
/// [RunTelemetry].
public final class TrainingRunEntity
        extends EventSourcedBehaviorWithEnforcedReplies<Message, RunEvent, TrainingRun> {
    /// The entity of a run that was never created stops at once, so that sharding forgets it.
    private static final Duration UNCREATED_IDLE = Duration.ofMillis(10);
    private static final int STASH_CAPACITY = 100_000;
    /// How long the recovery waits for the listing of the blobs.
    private static final Duration LISTING_LIMIT = Duration.ofSeconds(5);
    /// A run that is only passivated and started again takes a snapshot each time its sequence number is a
    /// multiple of this.
    private static final int SNAPSHOT_INTERVAL = 100;

    private final RunId id;
    private final RunEnvironment environment;
    private final RunSettings settings;
    private final RunContext context;
    private final Optional<ActorRef<ClusterSharding.ShardCommand>> shard;
    private final EngineSession session;
    private final RunResults results;
    private final RunMaintenance maintenance;
    private final WeightLeases leases;
    private final RunTelemetry telemetry;
    private final RunFollowers followers;
    private final UsageMeter meter = new UsageMeter();
    /// The newest event that the names of blobs proved before the recovery.
    private final long proven;
    private final List<ActorRef<RunReply>> unloading = new ArrayList<>();
    private RunScheduler scheduler;
    private long lastSnapshot;
    /// The sequence number of the first event that this incarnation persisted, see [BlobScope]; 0: none yet.
    private long incarnation;
    /// Whether the run existed when the timer of idleness was started.
    private boolean timedAsCreated;

    private TrainingRunEntity(RunId id, PersistenceId persistenceId, RunEnvironment environment,
            ActorContext<Message> actor, TimerScheduler<Message> timers,
            Optional<ActorRef<ClusterSharding.ShardCommand>> shard, long proven) {
        super(persistenceId, DamagedEntities.get(actor.getSystem()).supervision(persistenceId.id()));
        this.id = id;
        this.environment = environment;
        this.settings = environment.settings();
        this.context = new RunContext(id, environment, NodeName.of(actor.getSystem()), actor, timers);
        this.shard = shard;
        this.proven = proven;
        this.session = new EngineSession(context);
        this.results = new RunResults(context);
        this.maintenance = new RunMaintenance(context);
        this.leases = new WeightLeases(context);
        this.telemetry = new RunTelemetry(context);
        this.followers = new RunFollowers(context);
        this.scheduler = RunScheduler.initial(settings);
    }

    /// The entity of run `id`. Before its recovery it lists the blobs of the run: what their names prove, the
    /// journal has to have. A store that does not answer in time proves nothing.
    ///
    /// @param shard passivates the entity when it is idle; empty: it is never passivated
    public static Behavior<RunCommand> create(RunId id, PersistenceId persistenceId,
            RunEnvironment environment, Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        Behavior<Message> behavior = Behaviors.setup(actor -> Behaviors.withTimers(timers ->
                Behaviors.withStash(STASH_CAPACITY, early -> {
                    actor.pipeToSelf(environment.later(() -> newestEvent(environment.blobs().list(
                            BlobScope.run(id)).stream().map(each -> each.ref().id()))), (event, failure) ->
                            new SelfMessage.Proven(failure == null ? event : 0));
                    timers.startSingleTimer(new SelfMessage.Proven(0), LISTING_LIMIT);
                    return Behaviors.receiveMessage(message -> {
                        if (message instanceof SelfMessage.Proven(long event)) {
                            timers.cancelAll();
                            return early.unstashAll(new TrainingRunEntity(id, persistenceId, environment,
                                    actor, timers, shard, event));
                        }
                        early.stash(message);
                        return Behaviors.same();
                    });
                })));
        return behavior.narrow();
    }

    private static long newestEvent(Stream<BlobId> blobs) {
        return blobs.mapToLong(BlobScope::event).max().orElse(0);
    }

    @Override public TrainingRun emptyState() {
        return TrainingRun.NONE;
    }

    @Override public EventHandler<TrainingRun, RunEvent> eventHandler() {
        return (run, event) -> run.apply(event, settings.history());
    }

    /// Large, because events of the engine must not be dropped while the journal is slow. The gateway's
    /// commands are limited by their timeouts.
    @Override public Optional<Integer> stashCapacity() {
        return Optional.of(STASH_CAPACITY);
    }

    @Override public boolean shouldSnapshot(TrainingRun run, RunEvent event, long sequenceNr) {
        boolean often = event instanceof EntityBegan && sequenceNr % SNAPSHOT_INTERVAL == 0;
        // With it the events that an earlier snapshot replaces are deleted: the operations before the last
        // recovery point.
        boolean rests = event instanceof HistoryRecorded(var entry)
                && entry.kind() == HistoryEntry.Kind.PASSIVATED;
        return (event instanceof RecoveryPointReached || event instanceof RunClosed || often || rests)
                && run.inlineBytes() <= settings.snapshotBytes();
    }

    @Override public SignalHandler<TrainingRun> signalHandler() {
        return newSignalHandlerBuilder().onSignal(RecoveryCompleted.instance(), this::onRecovered)
                .onSignal(SnapshotCompleted.class, (_, taken) -> prune(taken.metadata().sequenceNr()))
                .onSignal(SnapshotFailed.class, (_, failed) -> {
                    telemetry.countJournalFailure("snapshot");
                    context.warn("a snapshot failed; the journal is not shortened: {}",
                            failed.failure().toString());
                })
                .onSignal(RecoveryFailed.class, (_, failed) ->
                onRecoveryFailed(failed.getFailure()))
                .onSignal(JournalPersistFailed.class,
                        (_, failed) -> onJournalFailed("write", failed.failure()))
                .onSignal(JournalPersistRejected.class,
                        (_, rejected) -> onJournalFailed("write", rejected.failure()))
                .onSignal(PreRestart.instance(), _ -> closeParts())
                .onSignal(PostStop.instance(), _ -> {
                    closeParts();
                    telemetry.countInactive();
                    if (scheduler.resident()) session.close();
                }).build();
    }

    private void closeParts() {
        maintenance.close();
        results.close();
    }

    /// Deletes the events up to the snapshot before the last one. An entity that starts on another node,
    /// because this one is wrongly considered dead, may have read that snapshot and not yet the events after
    /// it.
    private void prune(long snapshot) {
        var system = context.actor().getSystem();
        if (lastSnapshot > 0) JournalPruning.before(system, persistenceId().id(), lastSnapshot);
        else JournalPruning.beforePrevious(system, persistenceId().id(), snapshot);
        lastSnapshot = snapshot;
    }

    private void onJournalFailed(String action, Throwable failure) {
        telemetry.countJournalFailure(action);
        context.warn("the journal did not answer, the entity starts again: {}", failure.toString());
    }

    private void onRecoveryFailed(Throwable failure) {
        boolean damaged = DamagedEntities.get(context.actor().getSystem()).recoveryFailed(
                persistenceId().id(), "run " + id, failure, what -> context.warn("{}", what));
        if (damaged) telemetry.countJournalFailure("recover");
        else onJournalFailed("recover", failure);
    }

    private void onRecovered(TrainingRun run) {
        long last = lastSequenceNumber(context.actor());
        if (run.lacks(proven, last) && !settings.acceptLoss()) throw loss(proven, last);
        DamagedEntities.get(context.actor().getSystem()).recovered(persistenceId().id());
        context.actor().watchWith(environment.engine(),
                new SelfMessage.Step(new RunInput.EngineStopped()));
        restartIdleTimer(run);
        results.initialize(run);
        meter.begin(run);
        if (run.config().isPresent()) telemetry.countActive(scheduler.unfinished(run));
        stepOnly(run, new RunInput.Recovered());
        if (!scheduler.active()) context.tell(new SelfMessage.Begin());
    }

    /// The failure of a run whose journal is an older copy.
    private JournalDamaged loss(long blob, long last) {
        return new JournalDamaged(persistenceId().id() + ": the journal has events up to " + last + ", and a"
                + " blob was written when it had event " + blob + ": what was acknowledged since is lost."
                + " Put back a newer copy of the journal, or go on with what it has: bios up --accept-loss,"
                + " in a cluster bios.run.accept-loss");
    }

    @Override public CommandHandlerWithReply<Message, RunEvent, TrainingRun> commandHandler() {
        return (run, message) -> switch (message) {
            case RunCommand _ when !scheduler.active() -> Effect().stash();
            case RunCommand command -> {
                restartIdleTimer(run);
                maintenance.expectBlobs();
                yield onCommand(run, command);
            }
            case SelfMessage selfMessage -> onSelfMessage(run, selfMessage);
            default -> throw new IllegalStateException("not for a run: " + message);
        };
    }

    private void restartIdleTimer(TrainingRun run) {
        timedAsCreated = run.config().isPresent();
        start(new RunTimer.Idle(), timedAsCreated ? settings.idleAfter() : UNCREATED_IDLE);
    }

    private ReplyEffect<RunEvent, TrainingRun> onTimer(TrainingRun run, RunTimer timer) {
        if (!(timer instanceof RunTimer.Idle)) return handle(run, new RunInput.TimerElapsed(timer));
        if (timedAsCreated == run.config().isPresent())
            return handle(run, new RunInput.IdleElapsed(busy(run), shard.isPresent()));
        restartIdleTimer(run);
        return Effect().noReply();
    }

    // Commands

    private ReplyEffect<RunEvent, TrainingRun> onCommand(TrainingRun run, RunCommand command) {
        return switch (command) {
            case RunCommand.Create(var config, var replyTo) ->
                replyToDecision(run, run.create(config), replyTo, this::describe);
            case RunCommand.Submit c -> forOwner(run, c.owner(), c.replyTo(), () -> submit(run, c));
            case RunCommand.Retrieve c -> forOwner(run, c.owner(), c.replyTo(), () -> retrieve(run, c));
            case RunCommand.CheckOwner(var owner, var replyTo) ->
                replyToOwner(run, owner, replyTo, RunReply.Done::new);
            case RunCommand.Summarize(var owner, var replyTo) ->
                replyToOwner(run, owner, replyTo, () -> new RunReply.Summary(run.config().orElseThrow(),
                        run.lora().orElseThrow(), results.step(), run.closed()));
            case RunCommand.Describe(var owner, var accessible, var replyTo) ->
                accessible && !ownedBy(run, owner) && !published(run).isEmpty()
                        ? Effect().reply(replyTo, describeToOthers(run, published(run)))
                        : replyToOwner(run, owner, replyTo, () -> describe(run));
            case RunCommand.Resolve(var owner, var path, var replyTo) ->
                Effect().reply(replyTo, find(run, owner, path));
            case RunCommand.KeepWeights(var owner, var adapter, var loaded, var replyTo) ->
                Effect().reply(replyTo, keep(run, owner, adapter, loaded));
            case RunCommand.Publish(var owner, var kind, var name, var published, var replyTo) ->
                decideForOwner(run, owner, replyTo,
                        () -> run.checkpoints().decidePublication(kind, name, published));
            case RunCommand.SetProject(var owner, var project, var replyTo) ->
                decideForOwner(run, owner, replyTo, () -> run.setProject(project));
            case RunCommand.DeleteCheckpoint(var owner, var kind, var name, var replyTo) ->
                decideForOwner(run, owner, replyTo,
                        () -> run.checkpoints().decideDelete(kind, name, leases::mayBeLoaded));
            case RunCommand.SetExpiry(var owner, var kind, var name, var at, var replyTo) ->
                decideForOwner(run, owner, replyTo, () -> run.checkpoints().decideExpiry(kind, name, at));
            case RunCommand.ReleaseSnapshots(var owner, var session, var replyTo) ->
                decideForOwner(run, owner, replyTo, () -> run.checkpoints().decideRelease(session));
            case RunCommand.Unload(var owner, var replyTo) ->
                forOwner(run, owner, replyTo, () -> unload(run, replyTo));
            case RunCommand.GetHistory(var owner, long after, long wait, var replyTo) ->
                follow(run, owner, replyTo, () -> followers.history(run, after, wait, replyTo));
            case RunCommand.GetMetrics(var owner, long after, long wait, var replyTo) ->
                follow(run, owner, replyTo, () -> followers.metrics(after, wait, replyTo));
            case RunCommand.GetTimings(var owner, var replyTo) ->
                replyToOwner(run, owner, replyTo, () -> new RunReply.Timings(telemetry.timings().newest()));
            case RunCommand.Retry(var owner, var seq, var replyTo) ->
                forOwner(run, owner, replyTo, () -> decideOnWaiting(run, new RunInput.RetryRequested(seq),
                        seq.map(number -> new NamedDecision(run, number, false)), replyTo, "is set aside"));
            case RunCommand.GiveUp(var owner, var seq, var replyTo) ->
                forOwner(run, owner, replyTo, () -> decideOnWaiting(run, new RunInput.GiveUpRequested(seq),
                        seq.map(number -> new NamedDecision(run, number, true)), replyTo,
                        "is set aside, waits for a store without having been executed before, or meets the"
                                + " same fault at each attempt"));
            case RunCommand.ReportDeath(var report) -> handle(run, new RunInput.DeathReported(report));
            case RunCommand.Leave _ -> {
                // Waiting clients repeat their request, which the entity on the next node answers.
                if (!scheduler.leaving()) results.answerAll(seq -> pending(run, seq));
                yield handle(run, new RunInput.LeaveRequested());
            }
        };
    }

    private ReplyEffect<RunEvent, TrainingRun> forOwner(TrainingRun run, String owner,
            ActorRef<RunReply> replyTo, Supplier<ReplyEffect<RunEvent, TrainingRun>> effect) {
        return ownedBy(run, owner) ? effect.get() : Effect().reply(replyTo, unknown());
    }

    private static boolean ownedBy(TrainingRun run, String owner) {
        return run.config().filter(c -> c.owner().equals(owner)).isPresent();
    }

    /// The reply to other accounts, which is that about a run that does not exist.
    private RunReply unknown() {
        return new RunReply.Refused(Reason.NOT_FOUND, "there is no run " + id);
    }

    private ReplyEffect<RunEvent, TrainingRun> replyToOwner(TrainingRun run, String owner,
            ActorRef<RunReply> replyTo, Supplier<RunReply> reply) {
        return forOwner(run, owner, replyTo, () -> Effect().reply(replyTo, reply.get()));
    }

    private ReplyEffect<RunEvent, TrainingRun> decideForOwner(TrainingRun run, String owner,
            ActorRef<RunReply> replyTo, Supplier<Decision> decision) {
        return forOwner(run, owner, replyTo,
                () -> replyToDecision(run, decision.get(), replyTo, _ -> new RunReply.Done()));
    }

    private ReplyEffect<RunEvent, TrainingRun> refuse(ActorRef<RunReply> replyTo, Reason reason,
            String message) {
        return Effect().reply(replyTo, new RunReply.Refused(reason, message));
    }

    private ReplyEffect<RunEvent, TrainingRun> replyToDecision(TrainingRun run, Decision decision,
            ActorRef<RunReply> replyTo, Function<TrainingRun, RunReply> reply) {
        return switch (decision) {
            case Decision.Accept(var events) -> persist(events).thenReply(replyTo, reply::apply);
            case Decision.Duplicate _ -> Effect().reply(replyTo, reply.apply(run));
            case Decision.Refuse(var reason, var message) -> refuse(replyTo, reason, message);
        };
    }

    private ReplyEffect<RunEvent, TrainingRun> follow(TrainingRun run, String owner,
            ActorRef<RunReply> replyTo, Runnable asked) {
        return forOwner(run, owner, replyTo, () -> {
            asked.run();
            return Effect().noReply();
        });
    }

    private RunReply find(TrainingRun run, String owner, CheckpointPath path) {
        RunReply answer = ownedBy(run, owner) ? run.checkpoints().answer(path, context.now())
                : run.checkpoints().resolvePublished(path, context.now())
                        .<RunReply>map(RunReply.Resolved::new).orElseGet(this::unknown);
        if (answer instanceof RunReply.Resolved(var manifest)) leases.use(manifest.adapter().id(), false);
        return answer;
    }

    /// The use of weights: by their owner, by those who were given published ones, and by runs that have
    /// loaded them when they might and may have to load them again.
    private RunReply keep(TrainingRun run, String owner, BlobId adapter, boolean loaded) {
        if (run.config().isEmpty()) return unknown();
        Checkpoints held = run.checkpoints();
        boolean usable = loaded ? held.keeps(adapter)
                : ownedBy(run, owner) ? held.holds(adapter) : held.publishes(adapter);
        if (!usable) return Checkpoints.expired();
        leases.use(adapter, loaded);
        return new RunReply.Done();
    }

    private List<CheckpointManifest> published(TrainingRun run) {
        return run.checkpoints().current(context.now()).stream().filter(CheckpointManifest::readableByAll)
                .toList();
    }

    private RunReply describe(TrainingRun run) {
        return new RunReply.Described(run.config().orElseThrow(), run.lora().orElseThrow(), results.step(),
                run.lastRequestMillis(), run.checkpoints().current(context.now()), run.closed(),
                RunHistory.corrupted(run.history()),
                Optional.of(meter.now(context.now())).filter(used -> !used.none()), scheduler.waiting(run));
    }

    /// The run as it was when the newest of its published checkpoints was saved: what it does now, and where
    /// it comes from, is its owner's.
    private static RunReply describeToOthers(TrainingRun run, List<CheckpointManifest> published) {
        CheckpointManifest newest = published.stream()
                .max(Comparator.comparingLong(CheckpointManifest::createdAtMillis)).orElseThrow();
        return new RunReply.Described(run.config().orElseThrow().withoutOrigin(), run.lora().orElseThrow(),
                newest.step(), newest.createdAtMillis(), published, run.closed(), Optional.empty(),
                Optional.empty(), Optional.empty());
    }

    private ReplyEffect<RunEvent, TrainingRun> submit(TrainingRun run, RunCommand.Submit c) {
        telemetry.timings().recordArrival();
        boolean known = run.known().contains(c.seq());
        if (scheduler.unloading() && !known)
            return refuse(c.replyTo(), Reason.CLOSED, "the run is being unloaded");
        Optional<String> remembered = results.bySeq(c.seq()).map(FinishedOperation::digest);
        if (known && remembered.isEmpty() && run.bySeq(c.seq()).isEmpty()) {
            // Which operation had the number is known from its result only.
            if (!RunResults.mayFind(run, c.seq()))
                return refuse(c.replyTo(), Reason.CONFLICT, RunResults.forgotten(c.seq()));
            results.awaitDigest(run, c);
            return Effect().noReply();
        }
        if (!known && run.isLate(c.operation(), c.nowMillis(), settings))
            return refuse(c.replyTo(), Reason.UNAVAILABLE, "the operation arrived too late; send it again");
        TrainingRun.Backlog backlog = results.backlog(run, scheduler);
        Decision decision = run.submit(c.seq(), c.operation(), c.digest(), c.nowMillis(), remembered, backlog,
                scheduler.executed(run), settings);
        if (decision instanceof Decision.Accept)
            results.countAccepted(c.owner(), backlog, c.operation().bytes());
        return replyToDecision(run, decision, c.replyTo(),
                _ -> new RunReply.Accepted(new RequestId(id, c.seq())));
    }

    private ReplyEffect<RunEvent, TrainingRun> retrieve(TrainingRun run, RunCommand.Retrieve c) {
        var request = new RequestId(id, c.seq());
        if (!run.known().contains(c.seq()))
            return refuse(c.replyTo(), Reason.NOT_FOUND, "there is no request " + request);
        Optional<FinishedOperation> outcome = results.bySeq(c.seq());
        if (outcome.isPresent()) return answer(run, outcome.get(), c.replyTo());
        Optional<RunReply> aside = aside(run, c.seq());
        if (aside.isPresent()) return told(run, run.bySeq(c.seq()).orElseThrow().position(), aside.get(),
                c.replyTo());
        boolean awaited = scheduler.awaitsOutcome(run, c.seq());
        if (!awaited && !RunResults.mayFind(run, c.seq()))
            return refuse(c.replyTo(), Reason.NOT_FOUND,
                    "request " + request + " was finished, but its result is no longer kept");
        if (!awaited) results.search(run, c.seq());
        boolean full = results.waiterCount() >= settings.maxWaiting();
        if (c.waitMillis() <= 0 || scheduler.leaving() || full)
            return Effect().reply(c.replyTo(), pending(run, c.seq()));
        results.await(c.seq(), c.replyTo(), Duration.ofMillis(c.waitMillis()));
        return Effect().noReply();
    }

    /// Executes a command of the owner about an operation that is set aside or waits.
    ///
    /// @param named the reply if another operation than the named one is; empty: none was named
    /// @param which what the operation must be
    private ReplyEffect<RunEvent, TrainingRun> decideOnWaiting(TrainingRun run, RunInput input,
            Optional<NamedDecision> named, ActorRef<RunReply> replyTo, String which) {
        List<RunEvent> events = step(run, input);
        if (!events.isEmpty()) return persist(events).thenReply(replyTo, _ -> new RunReply.Done());
        if (named.isEmpty())
            return refuse(replyTo, Reason.CONFLICT, "no operation of run " + id + " " + which);
        NamedDecision decision = named.get();
        Optional<RunReply> reply = decision.reply(results.bySeq(decision.seq()), scheduler);
        if (reply.isPresent()) return Effect().reply(replyTo, reply.get());
        results.lookUp(run, decision.seq(), decision::afterOutcome, replyTo);
        return Effect().noReply();
    }

    /// The reply about an operation that is set aside, or that would train past it: no outcome.
    private Optional<RunReply> aside(TrainingRun run, long seq) {
        var request = new RequestId(id, seq);
        return run.setAside().flatMap(aside -> run.bySeq(seq).filter(o -> aside.holds(o.position()))
                .filter(o -> o.position() == aside.position() || changesState(run, aside))
                .map(_ -> new RunReply.Failed(request, new Fault(aside.why().kind(), aside.why().code(),
                        aside.why().message() + "; operation " + seq(run, aside) + " is set aside with its"
                        + " input, and what was accepted after it waits: try it again (POST"
                        + " /api/v1/training_runs/" + id + "/retry {\"seq_id\": " + seq(run, aside)
                        + "}), or " + (aside.differs() ? "give it up (.../give_up): then it fails, and so"
                                + " does what was accepted after it"
                                : "go on without it by sending other operations")))));
    }

    /// The client's number of the operation that was set aside.
    private static long seq(TrainingRun run, TrainingRun.SetAside aside) {
        return run.at(aside.position()).orElseThrow().seq();
    }

    private static boolean changesState(TrainingRun run, TrainingRun.SetAside aside) {
        return run.at(aside.position()).filter(o -> o.kind().changesState()).isPresent();
    }

    private RunReply pending(TrainingRun run, long seq) {
        var request = new RequestId(id, seq);
        Optional<TrainingRun.SetAside> before = run.setAside()
                .filter(aside -> run.bySeq(seq).filter(o -> aside.holds(o.position())).isPresent());
        if (before.isPresent()) return new RunReply.Stalled(request, new Fault(Fault.Kind.SERVER,
                before.get().why().code(), "operation " + seq(run, before.get())
                        + " before it is set aside"));
        return scheduler.stalled().<RunReply>map(why -> new RunReply.Stalled(request, why))
                .orElseGet(() -> new RunReply.Pending(request, scheduler.ahead(run, seq)));
    }

    /// Sends an outcome to a client. The first reply with the blocking failure persists an event: operations
    /// accepted afterwards are not blocked.
    private ReplyEffect<RunEvent, TrainingRun> answer(TrainingRun run, FinishedOperation outcome,
            ActorRef<RunReply> replyTo) {
        results.markFetched(outcome);
        var request = new RequestId(id, outcome.seq());
        if (outcome.result().isPresent())
            return Effect().reply(replyTo, new RunReply.Completed(request, outcome.result().get()));
        return told(run, outcome.position(),
                new RunReply.Failed(request, outcome.fault().orElseThrow()), replyTo);
    }

    private ReplyEffect<RunEvent, TrainingRun> told(TrainingRun run, long position, RunReply failed,
            ActorRef<RunReply> replyTo) {
        return run.wouldBeSeen(position)
                ? persist(List.of(new ErrorSeen(run.accepted()))).thenReply(replyTo, _ -> failed)
                : Effect().reply(replyTo, failed);
    }

    /// Closes the run as soon as all accepted operations have an outcome.
    private ReplyEffect<RunEvent, TrainingRun> unload(TrainingRun run, ActorRef<RunReply> replyTo) {
        if (run.closed()) return Effect().reply(replyTo, new RunReply.Done());
        unloading.add(replyTo);
        return handle(run, new RunInput.UnloadRequested());
    }

    // Messages from itself

    private ReplyEffect<RunEvent, TrainingRun> onSelfMessage(TrainingRun run, SelfMessage message) {
        return switch (message) {
            case SelfMessage.Step(var input) -> handle(run, input);
            case SelfMessage.Proven _ -> Effect().noReply(); // too late
            case SelfMessage.Begin _ -> persist(began(run)).thenNoReply().thenUnstashAll();
            case SelfMessage.TimerElapsed(var timer) -> onTimer(run, timer);
            case SelfMessage.Shrink _ -> {
                boolean more = results.shrink();
                results.updateAccount(run, scheduler);
                yield more ? handle(run, new RunInput.RecoveryPointWanted()) : Effect().noReply();
            }
            case SelfMessage.PageRead read -> {
                results.onPageRead(run, scheduler, read);
                yield Effect().noReply();
            }
            case SelfMessage.RetryPages _ -> {
                results.searchForWaiters(run, scheduler);
                yield Effect().noReply();
            }
            case SelfMessage.Indexed indexed -> onIndexed(run, indexed);
            case SelfMessage.IndexAgain _ -> {
                maintenance.permitWrite();
                index(run);
                yield Effect().noReply();
            }
            case SelfMessage.WaitTimedOut(var seq, var waiter) -> {
                Optional<ActorRef<RunReply>> expired = results.removeExpired(seq, waiter);
                yield expired.isEmpty() ? Effect().noReply()
                        : Effect().reply(expired.get(), pending(run, seq));
            }
            case SelfMessage.FollowTimedOut(long follower) -> {
                followers.over(follower);
                yield Effect().noReply();
            }
            case SelfMessage.Answer(var outcome, var replyTo) -> answer(run, outcome, replyTo);
            case SelfMessage.Expire _ -> {
                maintenance.scheduleExpiry(run);
                yield maintenance.hasExpired(run)
                        ? persist(List.of(run.checkpoints().expired(context.now(), leases::mayBeLoaded)))
                                .thenNoReply()
                        : Effect().noReply();
            }
            case SelfMessage.Upkeep upkeep -> onUpkeep(run, upkeep);
            case SelfMessage.RecordHistory(var entries) -> recordHistory(run, entries);
            case SelfMessage.Stop _ -> {
                followers.endAll();
                // An operation was accepted during passivation. (A run that moves is started by its shard.)
                if (scheduler.passivating() && scheduler.executable(run))
                    environment.starter().accept(id);
                yield Effect().stop().thenNoReply();
            }
        };
    }

    private ReplyEffect<RunEvent, TrainingRun> onUpkeep(TrainingRun run, SelfMessage.Upkeep message) {
        return switch (message) {
            case SelfMessage.ReleaseWeights _ -> {
                List<Unnamed> released = leases.over(run);
                leases.schedule(run);
                yield released.isEmpty() ? Effect().noReply()
                        : persist(List.of(new WeightsReleased(released))).thenNoReply();
            }
            case SelfMessage.KeepForeign _ -> {
                leases.keepForeign(run);
                yield Effect().noReply();
            }
            case SelfMessage.ForeignKept(var answered) -> {
                if (!answered) leases.keepForeignAfter(settings.retryAfter());
                yield Effect().noReply();
            }
            case SelfMessage.Sweep _ -> {
                maintenance.sweep();
                yield Effect().noReply();
            }
            case SelfMessage.Listed listed -> {
                long newest = newestEvent(listed.blobs().stream());
                long last = lastSequenceNumber(context.actor());
                // Not found at the start; the next start refuses the run, before these blobs are deleted.
                if (run.lacks(newest, last)) throw loss(newest, last);
                List<BlobId> found = maintenance.finishSweep(run, listed);
                yield found.isEmpty() ? Effect().noReply()
                        : persist(List.of(new BlobsAbandoned(found))).thenNoReply();
            }
        };
    }

    /// Whether the run has work in the background that passivation would interrupt.
    private boolean busy(TrainingRun run) {
        return results.waiterCount() > 0 || followers.any() || timedAsCreated
                && (maintenance.indexing() || leases.waits(run) || !maintenance.swept(run));
    }

    /// The events with which the entity begins: it is responsible now, and what is known of the ends of
    /// earlier processes of its node is in the journal before an operation is executed.
    private List<RunEvent> began(TrainingRun run) {
        var events = new ArrayList<RunEvent>(List.of(new EntityBegan(context.now())));
        long last = lastSequenceNumber(context.actor());
        if (run.lacks(proven, last)) events.add(new HistoryRecorded(telemetry.entry(
                HistoryEntry.Kind.DATA_LOST, Optional.empty(), Map.of("by", "accept-loss", "have", "" + last,
                        "acknowledged", "" + proven))));
        environment.deaths().apply(id).filter(run::learnsFrom).map(WorkerDied::new).ifPresent(events::add);
        return events;
    }

    private ReplyEffect<RunEvent, TrainingRun> onIndexed(TrainingRun run, SelfMessage.Indexed indexed) {
        for (long position : maintenance.finishWrite(indexed))
            stepOnly(run, new RunInput.SaveIndexed(position));
        index(run);
        return Effect().noReply();
    }

    /// Persists entries, unless the newest entry of the history says the same.
    private ReplyEffect<RunEvent, TrainingRun> recordHistory(TrainingRun run, List<HistoryEntry> entries) {
        boolean repeated = run.config().isEmpty()
                || entries.size() == 1 && RunHistory.repeatsNewest(run.history(), entries.getFirst());
        return repeated ? Effect().noReply()
                : persist(entries.stream().<RunEvent>map(HistoryRecorded::new).toList()).thenNoReply();
    }

    // The scheduler

    /// Passes an input to the scheduler and persists the events that follow.
    private ReplyEffect<RunEvent, TrainingRun> handle(TrainingRun run, RunInput input) {
        List<RunEvent> events = step(run, input);
        return events.isEmpty() ? Effect().noReply() : persist(events).thenNoReply();
    }

    /// Passes an input to the scheduler and executes the effects, except those that persist events.
    ///
    /// @return the events to be persisted
    private List<RunEvent> step(TrainingRun run, RunInput input) {
        var transition = scheduler.withResultsOverLimit(results.overLimit()).step(run, input);
        scheduler = transition.next();
        List<RunEvent> events = List.of();
        for (RunEffect effect : transition.effects()) {
            if (effect instanceof RunEffect.Persist(var persisted)) events = persisted;
            else execute(run, effect);
        }
        if (results.overLimit() != scheduler.resultsOverLimit())
            stepOnly(run, new RunInput.ResultsOverLimit(results.overLimit()));
        if (scheduler.active()) {
            results.updateAccount(run, scheduler);
            index(run);
        }
        return events;
    }

    /// The same for an input after which nothing can be persisted.
    private void stepOnly(TrainingRun run, RunInput input) {
        List<RunEvent> events = step(run, input);
        require(events.isEmpty(), "events cannot be persisted here: %s", events);
    }

    private void execute(TrainingRun run, RunEffect effect) {
        switch (effect) {
            case RunEffect.Persist _ -> throw new IllegalStateException("not executed here: " + effect);
            case RunEffect.PersistSoon(var epoch, var events) ->
                deliver(new RunInput.PersistDue(epoch, events));
            case RunEffect.StartSession(var epoch) -> session.start(epoch);
            case RunEffect.OpenRun _ -> session.open(run, incarnation);
            case RunEffect.CloseRun _ -> session.close();
            case RunEffect.Execute execute -> session.execute(execute);
            case RunEffect.TakeRecoveryPoint(var position) -> {
                telemetry.beginRecoveryPoint();
                session.takeRecoveryPoint(position);
            }
            case RunEffect.ResolveLoad resolve -> resolve(run, resolve);
            case RunEffect.WriteResults write -> results.write(run,
                    BlobScope.results(id, incarnation, lastSequenceNumber(context.actor())), write);
            case RunEffect.DeleteBlobs(var blobs) -> maintenance.delete(blobs);
            case RunEffect.StartTimer(var timer, var after) -> start(timer, after);
            case RunEffect.Finish(var outcome, var first) -> {
                // Before it is told: no later fault may replace it.
                if (outcome.result().isPresent()) environment.executed().accept(id, outcome.position());
                results.add(outcome);
                telemetry.recordOutcome(outcome.position(), first);
                run.at(outcome.position()).ifPresent(done -> {
                    meter.finished(done.kind(), outcome);
                    followers.finished(done.kind(), outcome, results.step());
                });
            }
            case RunEffect.IndexSave(var position) ->
                maintenance.awaitIndexed(lastSequenceNumber(context.actor()), position);
            case RunEffect.Unload _ -> deliver(new RunInput.UnloadDue(context.now()));
            case RunEffect.AnswerUnload _ -> {
                unloading.forEach(replyTo -> replyTo.tell(new RunReply.Done()));
                unloading.clear();
            }
            case RunEffect.Passivate(var resident) -> passivate(run, resident);
            case RunEffect.Stop _ -> context.tell(new SelfMessage.Stop());
            case RunEffect.Report(var occurrence) -> {
                if (occurrence instanceof RunEffect.Occurrence.Measured(var at, var worked))
                    meter.measured(at, worked);
                telemetry.report(run, occurrence);
            }
        }
    }

    private void deliver(RunInput input) {
        context.tell(new SelfMessage.Step(input));
    }

    private void start(RunTimer timer, Duration after) {
        context.after(after, timer.getClass(), new SelfMessage.TimerElapsed(timer));
    }

    private void index(TrainingRun run) {
        maintenance.index(run, results.step(), meter, lastSequenceNumber(context.actor()));
    }

    private void passivate(TrainingRun run, boolean resident) {
        if (resident) telemetry.countPassivated();
        if (resident || !RunHistory.passivated(run.history()))
            context.tell(new SelfMessage.RecordHistory(List.of(
                    telemetry.entry(HistoryEntry.Kind.PASSIVATED, Optional.empty(), Map.of()))));
        shard.orElseThrow().tell(new ClusterSharding.Passivate<>(context.actor().getSelf()));
    }

    /// Finds the checkpoint that a load names, in this run or in another one.
    private void resolve(TrainingRun run, RunEffect.ResolveLoad effect) {
        long epoch = effect.epoch();
        long position = effect.operation().position();
        Optional<Operation.LoadUpload> upload = StoredOperations.upload(effect.operation().operation());
        if (upload.isPresent()) {
            deliver(new RunInput.LoadFound(epoch, position, false,
                    uploaded(run, upload.get(), effect.operation().acceptedAtMillis())));
            return;
        }
        if (!(effect.operation().operation() instanceof StoredOperation.Inline(var kind, var encoded)
                && StoredOperations.decode(kind, encoded)
                        instanceof Operation.LoadState(var path, var optimizer))) {
            deliver(new RunInput.LoadFailed(epoch, position,
                    Fault.server("unreadable_operation", "the load cannot be read")));
            return;
        }
        if (path.run().equals(id)) {
            deliver(loadInput(epoch, position, optimizer,
                    find(run, run.config().orElseThrow().owner(), path)));
            return;
        }
        var unavailable = Fault.server(ReplayPolicy.UNAVAILABLE,
                "the run of " + path + " did not answer; retry later");
        context.whenDone(resolveElsewhere(run.config().orElseThrow().owner(), path),
                (reply, failure) -> {
                    boolean answered = failure == null && !(reply instanceof RunReply.Refused(var reason, _)
                            && reason == Reason.UNAVAILABLE);
                    return new SelfMessage.Step(answered ? loadInput(epoch, position, optimizer, reply)
                            : new RunInput.LoadUnanswered(epoch, position, effect.attempt(), unavailable));
                });
    }

    /// Finds a checkpoint of another run. Before the load is in the journal, that run knows that the weights
    /// may have to be loaded again: from then on nobody's deletion takes them away.
    private CompletionStage<RunReply> resolveElsewhere(String owner, CheckpointPath path) {
        CheckpointResolver others = environment.resolver();
        return others.resolve(owner, path).thenCompose(reply -> {
            if (!(reply instanceof RunReply.Resolved(var manifest)))
                return CompletableFuture.completedFuture(reply);
            return others.keepWeights(owner, manifest.adapter().id(), true).thenApply(kept -> switch (kept) {
                case RunReply.Done _ -> reply;
                case RunReply.Refused(var reason, _) when reason == Reason.UNAVAILABLE -> kept;
                default -> new RunReply.Refused(Reason.NOT_FOUND, path + " does not exist or was deleted");
            });
        });
    }

    /// The manifest of an uploaded adapter, which is no checkpoint of the run.
    private static CheckpointManifest uploaded(TrainingRun run, Operation.LoadUpload upload, long atMillis) {
        RunConfig config = run.config().orElseThrow();
        return new CheckpointManifest(config.run(), CheckpointKind.SAMPLER, Optional.of(upload.name()),
                config.baseModel(), upload.lora(), upload.adapter().id().sha256(), upload.adapter(),
                Optional.empty(), 0, AdamParams.DEFAULT, "adamw", "{}", Optional.empty(), atMillis,
                Optional.empty(), config.fingerprint());
    }

    private static RunInput loadInput(long epoch, long position, boolean optimizer, RunReply reply) {
        return switch (reply) {
            case RunReply.Resolved(var manifest) ->
                new RunInput.LoadFound(epoch, position, optimizer, manifest);
            case RunReply.Refused(_, var message) ->
                new RunInput.LoadFailed(epoch, position, Fault.user("checkpoint_not_found", message));
            default -> throw new IllegalStateException("unexpected answer to a resolution: " + reply);
        };
    }

    // Events

    private EffectBuilder<RunEvent, TrainingRun> persist(List<RunEvent> events) {
        var stamp = new RunEvent.Stamp(context.now(), context.node());
        List<RunEvent> stamped = events.stream().flatMap(this::withUsage).map(event -> event.stamped(stamp))
                .toList();
        long began = telemetry.now();
        return Effect().persist(stamped).thenRun((TrainingRun now) -> {
            telemetry.recordJournalWrite(began);
            if (incarnation == 0) {
                incarnation = lastSequenceNumber(context.actor()) - stamped.size() + 1;
                maintenance.scheduleSweep();
            }
            for (RunEvent event : stamped) onStored(now, event);
            followers.tell(now);
            stepOnly(now, new RunInput.Stored(stamped));
        });
    }

    /// An event, behind the usage of the operations that are never executed again after it.
    private Stream<RunEvent> withUsage(RunEvent event) {
        Optional<UsageCounted> used = switch (event) {
            case RecoveryPointReached e -> meter.upTo(e.position(), context.now());
            case RunClosed _ -> meter.upTo(Long.MAX_VALUE, context.now());
            default -> Optional.empty();
        };
        return Stream.concat(used.stream(), Stream.of(event));
    }

    /// Handles an event that was persisted, apart from the scheduler's decisions.
    private void onStored(TrainingRun run, RunEvent event) {
        switch (event) {
            case EntityBegan _ -> {
                maintenance.scheduleExpiry(run);
                maintenance.begin(run.pending().stream().anyMatch(operation -> !operation.settled()));
                leases.begin();
                leases.schedule(run);
                leases.keepForeign(run);
            }
            case OperationFailed(_, var why, _, _, _) -> telemetry.countFailed(why);
            case OperationAccepted e -> {
                telemetry.countAccepted(e.operation().kind());
                telemetry.timings().recordStored(e.position(), e.seq(), e.operation().kind());
            }
            case RecoveryPointReached e -> {
                telemetry.endRecoveryPoint(e.state().bytes());
                telemetry.timings().forget(e.position());
                results.markSaved(e.position());
                environment.contained().accept(id, e.position());
                maintenance.indexSoon();
            }
            case RunCreated _ -> {
                telemetry.countActive(0);
                maintenance.indexAtOnce();
            }
            case CheckpointCommitted e -> {
                leases.committed(run, e.manifest());
                leases.schedule(run);
                maintenance.indexAtOnce();
                maintenance.scheduleExpiry(run);
            }
            case UsageCounted _ -> meter.stored(run);
            case PublicationSet _, ProjectSet _ -> maintenance.indexAtOnce();
            case ExpirySet _ -> {
                maintenance.indexAtOnce();
                maintenance.scheduleExpiry(run);
            }
            case CheckpointDeleted _, CheckpointsExpired _ -> {
                leases.schedule(run);
                maintenance.indexAtOnce();
            }
            case RunClosed _, LoadApplied _ -> maintenance.indexAtOnce();
            // Waiting clients ask again and learn of it.
            case OperationSetAside _ -> results.answerAll(seq -> pending(run, seq));
            case LoadResolved _ -> leases.keepForeign(run);
            case WeightsReleased(var weights) -> {
                telemetry.countReleased(weights.size());
                maintenance.indexSoon();
            }
            case SnapshotsReleased _ -> maintenance.indexSoon();
            case BlobsAbandoned(var blobs) -> telemetry.countAbandoned(blobs.size());
            case ErrorSeen _, WorkerDied _, OperationRetried _, OperationAttempted _, ReplayBegan _,
                    ReplayFinished _, BlobsFreed _, HistoryRecorded _ -> {}
        }
    }
}
