package bios.coordinator.run;

import bios.coordinator.NodeName;
import bios.coordinator.run.Entry.Outcome;
import bios.coordinator.run.Results.Kept;
import bios.coordinator.run.RunEvent.*;
import bios.coordinator.run.TrainingRun.Decision;
import bios.persistence.index.RunSummary;
import bios.persistence.journal.JournalPruning;
import bios.protocol.Fault;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.run.RunNote;
import bios.protocol.run.StoredOperation;
import bios.protocol.stored.StoredOperations;
import bios.protocol.wire.Message;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
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

/// The sharded home of one [TrainingRun]: stores what the run decides, gives accepted operations to the
/// engine beside it, and answers for their outcomes. What comes next for the engine, [EngineLine] says.
public final class TrainingRunEntity
        extends EventSourcedBehaviorWithEnforcedReplies<Message, RunEvent, TrainingRun> {
    private static final Duration UNCREATED_IDLE = Duration.ofSeconds(5);
    private static final Duration POINT_WAIT = Duration.ofSeconds(1);
    private static final int RESOLVE_ATTEMPTS = 5;
    private static final int OPEN_ATTEMPTS = 5;
    private static final int STASH = 100_000;
    /// A run that only rests and is woken has a snapshot every so many events.
    private static final int SNAPSHOT_OF_BEGINNINGS = 100;

    /// What the entity tells itself.
    private sealed interface Internal extends Message {
        /// What was recovered is all there is.
        record Begin() implements Internal {}

        /// Go on with the line.
        record Advance() implements Internal {}

        record Store(long epoch, List<RunEvent> events) implements Internal {}

        record FromEngine(long epoch, EngineEvent event) implements Internal {}

        record EngineGone() implements Internal {}

        record Reopen(long epoch) implements Internal {}

        record LoadFound(long epoch, long position, boolean optimizer, CheckpointManifest manifest)
                implements Internal {}

        record LoadFailed(long epoch, long position, Fault why) implements Internal {}

        record ResolveLater(long epoch, long position, int attempt) implements Internal {}

        record ResolveAgain(long epoch, long position, int attempt) implements Internal {}

        record PointKept(long epoch, EngineEvent.RecoveryPointWritten point, List<ResultsPage> results)
                implements Internal {}

        record PointLost(long epoch, String why) implements Internal {}

        record Freed(List<BlobId> blobs) implements Internal {}

        record NotFreed(String why) implements Internal {}

        /// A recovery point may be tried again.
        record PointsAgain() implements Internal {}

        /// The results of all runs take too much of the node's memory.
        record Shrink() implements Internal {}

        /// The store may give a page of results now.
        record PagesAgain() implements Internal {}

        /// A page of results was read in search of `seq`.
        ///
        /// @param among the pages that were looked through
        record PageRead(long seq, Optional<Kept> found, List<Kept> page, List<ResultsPage> among,
                Optional<String> failure) implements Internal {}

        record Indexed(long version, Optional<String> failure) implements Internal {}

        record WaitOver(long seq, long waiter) implements Internal {}

        /// Answer one who has waited.
        record Answer(Kept kept, ActorRef<RunReply> replyTo) implements Internal {}

        record Idle() implements Internal {}

        record Expire() implements Internal {}

        /// Keep this in the history.
        record Note(List<RunNote> notes) implements Internal {}

        record Close() implements Internal {}

        /// End now, whatever the engine still does.
        record Left() implements Internal {}
    }

    private record Waiter(long id, ActorRef<RunReply> replyTo) {}

    private record PendingSave(long version, Kept kept) {}

    private final RunId id;
    private final RunWorld world;
    private final RunSettings settings;
    private final ActorContext<Message> context;
    private final TimerScheduler<Message> timers;
    private final Optional<ActorRef<ClusterSharding.ShardCommand>> shard;

    private final AtomicBoolean living = new AtomicBoolean(true);
    private final EngineLine line;
    private final Results results;
    private final NodeMemory.Account memory;
    private final String node;
    private final RunMeter meter;
    private final Timings timings;
    private final Set<Long> done = new HashSet<>();
    private final Map<Long, List<Waiter>> waiters = new HashMap<>();
    private final List<PendingSave> pendingSaves = new ArrayList<>();
    private final List<ActorRef<RunReply>> unloading = new ArrayList<>();
    private ActorRef<EngineEvent> listener;
    private Optional<EngineEvent.RecoveryPointWritten> point = Optional.empty();
    private long epoch;
    private long nextWaiter;
    private long step;
    private long lastSnapshot;
    private boolean begun;
    private boolean opening;
    private boolean opened;
    private boolean storing;
    private boolean keepingPoint;
    private boolean freeing;
    private boolean freeLater;
    private boolean indexing;
    private boolean indexAgain;
    private boolean readingResults;
    private boolean leaving;
    private boolean resting;
    private boolean shrinking;
    private int openAttempts;
    private Optional<Fault> stalled = Optional.empty();

    private TrainingRunEntity(RunId id, PersistenceId persistenceId, RunWorld world,
            ActorContext<Message> context,
            TimerScheduler<Message> timers, Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        super(persistenceId);
        this.id = id;
        this.world = world;
        this.settings = world.settings();
        this.context = context;
        this.timers = timers;
        this.shard = shard;
        this.node = NodeName.of(context.getSystem());
        this.meter = new RunMeter(id.slug(), world.nanos());
        this.timings = new Timings(world.nanos());
        this.line = new EngineLine(settings, () -> world.solo().take(this,
                () -> context.getSelf().tell(new Internal.Advance())));
        this.results = new Results(settings.maxResults(), settings.maxResultBytes(),
                settings.resultMemoryBytes());
        ActorRef<Message> self = context.getSelf();
        this.memory = world.memory().open(() -> self.tell(new Internal.Shrink()));
    }

    /// The home of run `id`.
    ///
    /// @param shard who lets it go when it is idle; empty: it stays
    public static Behavior<RunCommand> create(RunId id, PersistenceId persistenceId, RunWorld world,
            Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        Behavior<Message> behavior = Behaviors.setup(context -> Behaviors.withTimers(
                timers -> new TrainingRunEntity(id, persistenceId, world, context, timers, shard)));
        return behavior.narrow();
    }

    @Override public TrainingRun emptyState() {
        return TrainingRun.NONE;
    }

    @Override public EventHandler<TrainingRun, RunEvent> eventHandler() {
        return (run, event) -> run.apply(event, settings.history());
    }

    /// What the engine says must not be dropped while the journal is slow; what the gateway sends is
    /// bounded by its own waits.
    @Override public Optional<Integer> stashCapacity() {
        return Optional.of(STASH);
    }

    @Override public boolean shouldSnapshot(TrainingRun run, RunEvent event, long sequenceNr) {
        boolean often = event instanceof EntityBegan && sequenceNr % SNAPSHOT_OF_BEGINNINGS == 0;
        return (event instanceof RecoveryPointReached || event instanceof RunClosed || often)
                && run.inlineBytes() <= settings.snapshotBytes();
    }

    @Override public SignalHandler<TrainingRun> signalHandler() {
        return newSignalHandlerBuilder().onSignal(RecoveryCompleted.instance(), this::recovered)
                .onSignal(SnapshotCompleted.class, (_, taken) -> prune(taken.metadata().sequenceNr()))
                .onSignal(SnapshotFailed.class, (_, failed) -> {
                    meter.refused("snapshot");
                    warn("its snapshot failed, the journal stays longer: {}", failed.failure().toString());
                })
                .onSignal(RecoveryFailed.class, (_, failed) -> journalFailed("recover", failed.getFailure()))
                .onSignal(JournalPersistFailed.class,
                        (_, failed) -> journalFailed("write", failed.failure()))
                .onSignal(JournalPersistRejected.class,
                        (_, rejected) -> journalFailed("write", rejected.failure()))
                .onSignal(PreRestart.instance(), _ -> {
                    living.set(false);
                    memory.close();
                    world.solo().leave(this);
                })
                .onSignal(PostStop.instance(), _ -> {
                    living.set(false);
                    memory.close();
                    world.solo().leave(this);
                    meter.ends();
                    closeEngine();
                }).build();
    }

    /// Deletes what the snapshot before the last one has made superfluous. An entity that begins elsewhere
    /// while this one is only believed dead may have read that snapshot and not yet the events behind it.
    private void prune(long snapshot) {
        if (lastSnapshot > 0)
            JournalPruning.before(context.getSystem(), persistenceId().id(), lastSnapshot);
        lastSnapshot = snapshot;
    }

    private void journalFailed(String action, Throwable failure) {
        meter.refused(action);
        warn("the journal did not answer, the run begins again: {}", failure.toString());
    }

    private void warn(String message, Object... values) {
        context.getLog().atWarn().addKeyValue("run", id).log(message, values);
    }

    @Override public CommandHandlerWithReply<Message, RunEvent, TrainingRun> commandHandler() {
        return (run, message) -> switch (message) {
            case RunCommand command -> begun ? onCommand(run, command) : Effect().stash();
            case Internal internal -> onInternal(run, internal);
            default -> throw new IllegalStateException("not for a run: " + message);
        };
    }

    // From the gateway

    private ReplyEffect<RunEvent, TrainingRun> onCommand(TrainingRun run, RunCommand command) {
        restIn(run.config().isEmpty() ? UNCREATED_IDLE : settings.idleAfter());
        return switch (command) {
            case RunCommand.Create(var config, var replyTo) ->
                    carryOut(run.create(config), replyTo, this::described);
            case RunCommand.Submit c -> stranger(run, c.owner(), c.replyTo(), () -> submit(run, c));
            case RunCommand.Retrieve c -> stranger(run, c.owner(), c.replyTo(), () -> retrieve(run, c));
            case RunCommand.Describe(var owner, var replyTo) ->
                    stranger(run, owner, replyTo, () -> Effect().reply(replyTo, described(run)));
            case RunCommand.Resolve(var owner, var path, var replyTo) ->
                    stranger(run, owner, replyTo, () -> Effect().reply(replyTo,
                            found(run.checkpoints().resolve(path, now()),
                                    path + " does not exist or was deleted")));
            case RunCommand.ResolveSnapshot(var owner, var content, var replyTo) ->
                    stranger(run, owner, replyTo, () -> Effect().reply(replyTo,
                            found(run.checkpoints().snapshot(content),
                                    "the snapshot " + content + " is gone")));
            case RunCommand.DeleteCheckpoint(var owner, var kind, var name, var replyTo) ->
                    stranger(run, owner, replyTo, () -> !run.checkpoints().has(kind, name)
                            ? refuse(replyTo, Reason.NOT_FOUND, "the run has no such checkpoint")
                            : carryOut(accept(new CheckpointDeleted(kind, name)), replyTo,
                                    _ -> new RunReply.Done()));
            case RunCommand.SetExpiry(var owner, var kind, var name, var at, var replyTo) ->
                    stranger(run, owner, replyTo, () -> !run.checkpoints().has(kind, name)
                            ? refuse(replyTo, Reason.NOT_FOUND, "the run has no such checkpoint")
                            : carryOut(accept(new ExpirySet(kind, name, at)), replyTo,
                                    _ -> new RunReply.Done()));
            case RunCommand.ReleaseSnapshots(var owner, var session, var replyTo) ->
                    stranger(run, owner, replyTo, () -> run.checkpoints().snapshots().stream()
                            .noneMatch(s -> s.session().equals(session))
                            ? Effect().reply(replyTo, new RunReply.Done())
                            : carryOut(accept(new SnapshotsReleased(session)), replyTo,
                                    _ -> new RunReply.Done()));
            case RunCommand.Unload(var owner, var replyTo) ->
                    stranger(run, owner, replyTo, () -> unload(run, replyTo));
            case RunCommand.Recount(var owner, var replyTo) -> stranger(run, owner, replyTo, () ->
                    Effect().reply(replyTo, new RunReply.Recounted(run.history())));
            case RunCommand.Time(var owner, var replyTo) -> stranger(run, owner, replyTo, () ->
                    Effect().reply(replyTo, new RunReply.Timed(timings.newest())));
            case RunCommand.Leave _ -> leave(run);
        };
    }

    private interface Handling {
        ReplyEffect<RunEvent, TrainingRun> handle();
    }

    private ReplyEffect<RunEvent, TrainingRun> stranger(TrainingRun run, String owner,
            ActorRef<RunReply> replyTo, Handling handling) {
        boolean own = run.config().filter(c -> c.owner().equals(owner)).isPresent();
        return own ? handling.handle() : refuse(replyTo, Reason.NOT_FOUND, "there is no run " + id);
    }

    private ReplyEffect<RunEvent, TrainingRun> refuse(ActorRef<RunReply> replyTo, Reason reason,
            String message) {
        return Effect().reply(replyTo, new RunReply.Refused(reason, message));
    }

    private static Decision accept(RunEvent event) {
        return new Decision.Accept(List.of(event));
    }

    private interface Reply {
        RunReply of(TrainingRun run);
    }

    private ReplyEffect<RunEvent, TrainingRun> carryOut(Decision decision,
            ActorRef<RunReply> replyTo, Reply reply) {
        return switch (decision) {
            case Decision.Accept(var events) ->
                    persist(events).thenReply(replyTo, reply::of);
            case Decision.Duplicate _ -> Effect().none().thenReply(replyTo, reply::of);
            case Decision.Refuse(var reason, var message) -> refuse(replyTo, reason, message);
        };
    }

    private ReplyEffect<RunEvent, TrainingRun> submit(TrainingRun run, RunCommand.Submit c) {
        timings.arrived();
        boolean known = run.known().contains(c.seq());
        if (!unloading.isEmpty() && !known)
            return refuse(c.replyTo(), Reason.CLOSED, "the run is being unloaded");
        Optional<String> remembered = results.bySeq(c.seq()).map(Kept::digest);
        Decision decision = run.submit(c.seq(), c.operation(), c.digest(), c.nowMillis(), remembered,
                load(run), settings);
        if (decision instanceof Decision.Accept) {
            var now = load(run);
            memory.unfinished(c.owner(), now.unfinished() + 1, now.unfinishedBytes() + c.operation().bytes());
        }
        return carryOut(decision, c.replyTo(), _ -> new RunReply.Accepted(new RequestId(id, c.seq())));
    }

    private TrainingRun.Load load(TrainingRun run) {
        int count = 0;
        long bytes = 0;
        for (Entry entry : run.line()) {
            if (done.contains(entry.position())) continue;
            count++;
            bytes += entry.operation().bytes();
        }
        String owner = run.config().map(config -> config.owner()).orElse("");
        return new TrainingRun.Load(count, bytes, world.memory().unfinished(owner),
                world.memory().unfinishedBytes(owner));
    }

    /// Tells the node what this run takes.
    private void account(TrainingRun run) {
        if (run.config().isEmpty()) return;
        var now = load(run);
        memory.unfinished(run.config().get().owner(), now.unfinished(), now.unfinishedBytes());
        memory.results(results.bytes());
    }

    private ReplyEffect<RunEvent, TrainingRun> retrieve(TrainingRun run, RunCommand.Retrieve c) {
        var request = new RequestId(id, c.seq());
        if (!run.known().contains(c.seq()))
            return refuse(c.replyTo(), Reason.NOT_FOUND, "there is no request " + request);
        Optional<Kept> kept = results.bySeq(c.seq());
        if (kept.isPresent()) return answer(run, kept.get(), c.replyTo());
        Optional<Entry> entry = run.bySeq(c.seq());
        boolean coming = entry.filter(e -> !done.contains(e.position())).isPresent();
        if (!coming && !paged(run, c.seq()))
            return refuse(c.replyTo(), Reason.NOT_FOUND,
                    "request " + request + " was finished, but its result is no longer kept");
        if (!coming) readPages(run, c.seq());
        if (c.waitMillis() <= 0 || leaving || waiting() >= settings.maxWaiting())
            return Effect().reply(c.replyTo(), pending(run, c.seq()));
        var waiter = new Waiter(nextWaiter++, c.replyTo());
        waiters.computeIfAbsent(c.seq(), _ -> new ArrayList<>()).add(waiter);
        timers.startSingleTimer(waiter.id(), new Internal.WaitOver(c.seq(), waiter.id()),
                Duration.ofMillis(c.waitMillis()));
        return Effect().noReply();
    }

    private static boolean paged(TrainingRun run, long seq) {
        return run.recovery().allPages().stream().anyMatch(page -> page.mayHold(seq));
    }

    private int waiting() {
        return waiters.values().stream().mapToInt(List::size).sum();
    }

    private RunReply pending(TrainingRun run, long seq) {
        int ahead = 0;
        for (Entry entry : run.line()) {
            if (entry.seq() == seq) break;
            if (!done.contains(entry.position())) ahead++;
        }
        if (stalled.isPresent()) return new RunReply.Stalled(new RequestId(id, seq), stalled.get());
        return new RunReply.Pending(new RequestId(id, seq), run.bySeq(seq).isPresent() ? ahead : 0);
    }

    private ReplyEffect<RunEvent, TrainingRun> answer(TrainingRun run, Kept kept,
            ActorRef<RunReply> replyTo) {
        results.fetched(kept);
        var request = new RequestId(id, kept.seq());
        if (kept.result().isPresent())
            return Effect().reply(replyTo, new RunReply.Completed(request, kept.result().get()));
        var failed = new RunReply.Failed(request, kept.fault().orElseThrow());
        if (!run.wouldBeSeen(kept.position())) return Effect().reply(replyTo, failed);
        return carryOut(accept(new ErrorSeen(run.accepted())), replyTo, _ -> failed);
    }

    private RunReply described(TrainingRun run) {
        return new RunReply.Described(run.config().orElseThrow(), run.lora().orElseThrow(),
                step, run.lastRequestMillis(), run.checkpoints().current(now()), run.closed());
    }

    private static RunReply found(Optional<CheckpointManifest> manifest, String otherwise) {
        return manifest.<RunReply>map(RunReply.Resolved::new)
                .orElseGet(() -> new RunReply.Refused(Reason.NOT_FOUND, otherwise));
    }

    private ReplyEffect<RunEvent, TrainingRun> unload(TrainingRun run, ActorRef<RunReply> replyTo) {
        if (run.closed()) return Effect().reply(replyTo, new RunReply.Done());
        unloading.add(replyTo);
        context.getSelf().tell(new Internal.Close());
        return Effect().noReply();
    }

    // From itself

    private ReplyEffect<RunEvent, TrainingRun> onInternal(TrainingRun run, Internal message) {
        return switch (message) {
            case Internal.Begin _ -> {
                begun = true;
                yield Effect().persist(List.<RunEvent>of(new EntityBegan(now())))
                        .thenRun(this::begun).thenNoReply().thenUnstashAll();
            }
            case Internal.Advance _ -> advancing(run);
            case Internal.Store(var at, var events) -> {
                storing = false;
                yield at == epoch ? store(events) : advancing(run);
            }
            case Internal.FromEngine(var at, var event) ->
                    at == epoch ? onEngine(run, event) : Effect().noReply();
            case Internal.EngineGone _ -> engineLost(run);
            case Internal.Reopen(var at) -> {
                if (at == epoch) opening = false;
                yield advancing(run);
            }
            case Internal.LoadFound(var at, var position, var optimizer, var manifest) ->
                    at != epoch ? Effect().noReply() : resolved(run.load(position, manifest, optimizer));
            case Internal.LoadFailed(var at, var position, var why) -> at != epoch ? Effect().noReply()
                    : resolved(new OperationFailed(position, why));
            case Internal.ResolveLater(var at, var position, var attempt) -> {
                timers.startSingleTimer("resolve", new Internal.ResolveAgain(at, position, attempt),
                        settings.retryAfter());
                yield Effect().noReply();
            }
            case Internal.ResolveAgain(var at, var position, var attempt) -> {
                if (at == epoch) run.at(position).ifPresent(entry -> resolve(run, entry, attempt));
                yield Effect().noReply();
            }
            case Internal.PointKept(var at, var reached, var kept) -> pointKept(run, at, reached, kept);
            case Internal.PointLost(var at, var why) -> pointLost(run, at, why);
            case Internal.Freed(var blobs) -> {
                freeing = false;
                yield store(List.of(new BlobsFreed(blobs)));
            }
            case Internal.NotFreed(var why) -> notFreed(why);
            case Internal.PageRead read -> pageRead(run, read);
            case Internal.PagesAgain _ -> {
                readPagesOfWaiters(run);
                yield Effect().noReply();
            }
            case Internal.PointsAgain _ -> {
                line.pointsAgain();
                yield advancing(run);
            }
            case Internal.Shrink _ -> shrink(run);
            case Internal.Indexed(var version, var failure) -> indexed(run, version, failure);
            case Internal.WaitOver(var seq, var waiter) -> waitOver(run, seq, waiter);
            case Internal.Answer(var kept, var replyTo) -> answer(run, kept, replyTo);
            case Internal.Idle _ -> idle(run);
            case Internal.Expire _ -> {
                scheduleExpiry(run);
                boolean due = run.checkpoints().nextExpiry().filter(at -> at <= now()).isPresent();
                yield due ? store(List.of(new CheckpointsExpired(now()))) : Effect().noReply();
            }
            case Internal.Note(var notes) -> note(run, notes);
            case Internal.Close _ -> close(run);
            case Internal.Left _ -> {
                // Work was accepted on the way to rest. (A run that moves begins again where its shard goes.)
                if (resting && load(run).unfinished() > 0) world.waker().accept(id);
                yield Effect().stop().thenNoReply();
            }
        };
    }

    private ReplyEffect<RunEvent, TrainingRun> advancing(TrainingRun run) {
        return Effect().none().thenRun(this::advance).thenNoReply();
    }

    private ReplyEffect<RunEvent, TrainingRun> store(List<RunEvent> events) {
        return persist(events).thenNoReply();
    }

    private EffectBuilder<RunEvent, TrainingRun> persist(List<RunEvent> events) {
        List<RunEvent> stamped = stamped(events);
        long began = meter.now();
        return Effect().persist(stamped).thenRun((TrainingRun now) -> {
            meter.stored(began);
            stored(now, stamped);
        });
    }

    private List<RunEvent> stamped(List<RunEvent> events) {
        var stamp = new RunEvent.Stamp(now(), node);
        return events.stream().map(event -> event.stamped(stamp)).toList();
    }

    // The history

    /// Has something put into the history, as an event of its own: for rare things only.
    private void note(RunNote.Kind kind, Optional<Long> position, Map<String, String> detail) {
        context.getSelf().tell(new Internal.Note(List.of(noted(kind, position, detail))));
    }

    private RunNote noted(RunNote.Kind kind, Optional<Long> position, Map<String, String> detail) {
        return new RunNote(now(), Optional.of(node), kind, position, Optional.empty(), detail);
    }

    /// What the newest entry says already is not said again.
    private ReplyEffect<RunEvent, TrainingRun> note(TrainingRun run, List<RunNote> notes) {
        boolean said = run.config().isEmpty() || notes.size() == 1 && !run.history().isEmpty()
                && repeats(notes.getFirst(), run.history().getLast());
        return said ? Effect().noReply() : store(notes.stream().<RunEvent>map(Noted::new).toList());
    }

    private static boolean repeats(RunNote now, RunNote last) {
        return now.repeats(last) || now.kind() == RunNote.Kind.RECOVERY_POINT_FAILED
                && last.kind() == now.kind() && last.node().equals(now.node());
    }

    private void noteOpened(TrainingRun run) {
        var notes = new ArrayList<RunNote>();
        run.history().reversed().stream().filter(n -> n.kind() == RunNote.Kind.OPENED)
                .flatMap(n -> n.node().stream()).findFirst().filter(before -> !before.equals(node))
                .ifPresent(before -> {
                    meter.moved();
                    notes.add(noted(RunNote.Kind.MOVED, Optional.empty(), Map.of("from", before)));
                });
        long point = run.recovery().position();
        notes.add(noted(RunNote.Kind.OPENED, Optional.of(point).filter(at -> at > 0), Map.of("recovery_point",
                point == 0 ? "none" : "" + point, "replay", "" + meter.again())));
        context.getSelf().tell(new Internal.Note(notes));
    }

    /// What follows from events that the journal now holds.
    private void stored(TrainingRun run, List<RunEvent> events) {
        boolean index = false;
        for (RunEvent event : events) {
            switch (event) {
                case OperationFailed(var at, var why, _) -> {
                    meter.failed(why);
                    run.at(at).ifPresent(e -> complete(failure(e, why)));
                }
                case CheckpointCommitted(var at, var manifest, _, _) -> {
                    Entry entry = run.at(at).orElseThrow();
                    pendingSaves.add(new PendingSave(lastSequenceNumber(context),
                            success(entry, new OperationResult.Saved(manifest))));
                    index = true;
                    scheduleExpiry(run);
                }
                case OperationAccepted e -> {
                    meter.accepted(e.operation().kind());
                    timings.stored(e.position(), e.seq(), e.operation().kind());
                }
                case RecoveryPointReached e -> {
                    meter.pointStored(e.state().bytes());
                    timings.forget(e.position());
                    done.removeIf(position -> position <= e.position());
                    results.saved(e.position());
                    if (shrinking) shrunk();
                    index = true;
                }
                case RunCreated _ -> {
                    meter.begins(0);
                    index = true;
                }
                case CheckpointDeleted _, CheckpointsExpired _, RunClosed _ -> index = true;
                case ExpirySet _ -> {
                    index = true;
                    scheduleExpiry(run);
                }
                case LoadResolved _, LoadApplied _, ErrorSeen _, SnapshotsReleased _,
                        OperationAttempted _, ReplayBegan _, ReplayFinished _, BlobsFreed _, EntityBegan _, Noted _ -> {}
            }
        }
        if (index) index(run);
        advance(run);
    }

    // Results

    private static Kept success(Entry entry, OperationResult result) {
        return new Kept(entry.position(), entry.seq(), entry.digest(), Optional.of(result), Optional.empty());
    }

    private static Kept failure(Entry entry, Fault why) {
        return new Kept(entry.position(), entry.seq(), entry.digest(), Optional.empty(), Optional.of(why));
    }

    private void complete(Kept kept) {
        timings.finished(kept.position());
        results.add(kept);
        if (done.add(kept.position())) meter.finished();
        meter.reached(kept.position()).ifPresent(recovered -> {
            note(RunNote.Kind.RECOVERED, Optional.of(kept.position()), Map.of("seconds",
                    String.format(Locale.ROOT, "%.3f", recovered.seconds()), "operations",
                    "" + recovered.operations()));
            context.getLog().atInfo().addKeyValue("run", id).addKeyValue("position", kept.position())
                    .log("recovered in {} s, {} operations executed again", recovered.seconds(),
                            recovered.operations());
        });
        wake(kept);
    }

    private void wake(Kept kept) {
        List<Waiter> waited = waiters.remove(kept.seq());
        if (waited == null) return;
        for (Waiter waiter : waited) {
            timers.cancel(waiter.id());
            context.getSelf().tell(new Internal.Answer(kept, waiter.replyTo()));
        }
    }

    private ReplyEffect<RunEvent, TrainingRun> waitOver(TrainingRun run, long seq, long id) {
        List<Waiter> waited = waiters.getOrDefault(seq, List.of());
        Optional<Waiter> over = waited.stream().filter(w -> w.id() == id).findFirst();
        if (over.isEmpty()) return Effect().noReply();
        waited.remove(over.get());
        if (waited.isEmpty()) waiters.remove(seq);
        return Effect().reply(over.get().replyTo(), pending(run, seq));
    }

    /// Looks for the result of `seq` in the pages that may hold it, newest first; one search at a time.
    private void readPages(TrainingRun run, long seq) {
        if (readingResults) return;
        readingResults = true;
        List<ResultsPage> among = run.recovery().allPages();
        context.pipeToSelf(world.later(() -> {
            for (ResultsPage page : among.reversed()) {
                if (!page.mayHold(seq)) continue;
                List<Kept> all = ResultsPages.read(world.blobs(), page);
                Optional<Kept> found = all.stream().filter(kept -> kept.seq() == seq).findFirst();
                if (found.isPresent()) return new Internal.PageRead(seq, found, all, among, Optional.empty());
            }
            return new Internal.PageRead(seq, Optional.empty(), List.of(), among, Optional.empty());
        }), (read, failure) -> failure == null ? read
                : new Internal.PageRead(seq, Optional.empty(), List.of(), among,
                        Optional.of(failure.toString())));
    }

    private ReplyEffect<RunEvent, TrainingRun> pageRead(TrainingRun run, Internal.PageRead read) {
        readingResults = false;
        if (read.failure().isPresent()) {
            warn("the result of request {} waits for the store: {}", read.seq(), read.failure().get());
            timers.startSingleTimer("pages", new Internal.PagesAgain(), settings.retryAfter());
            return Effect().noReply();
        }
        read.page().forEach(results::add);
        read.found().ifPresent(this::wake);
        // A page may have been merged into another meanwhile.
        if (read.found().isEmpty() && read.among().equals(run.recovery().allPages())) {
            List<Waiter> waited = waiters.getOrDefault(read.seq(), List.of());
            waiters.remove(read.seq());
            for (Waiter waiter : waited) {
                timers.cancel(waiter.id());
                waiter.replyTo().tell(new RunReply.Refused(Reason.NOT_FOUND,
                        "the result of request " + read.seq() + " is no longer kept"));
            }
        }
        readPagesOfWaiters(run);
        account(run);
        return Effect().noReply();
    }

    private void readPagesOfWaiters(TrainingRun run) {
        for (long seq : List.copyOf(waiters.keySet())) {
            Optional<Kept> kept = results.bySeq(seq);
            kept.ifPresent(this::wake);
            boolean coming = run.bySeq(seq).filter(e -> !done.contains(e.position())).isPresent();
            if (kept.isEmpty() && !coming) readPages(run, seq);
        }
    }

    /// Gives back what it can of the node's memory: at once what lies in pages, the rest behind a point.
    private ReplyEffect<RunEvent, TrainingRun> shrink(TrainingRun run) {
        shrinking = true;
        results.shrink(0);
        if (results.unsavedBytes() == 0) shrunk();
        else line.wantPoint();
        return advancing(run);
    }

    private void shrunk() {
        shrinking = false;
        results.shrink(0);
        memory.heard();
    }

    // The engine

    private void recovered(TrainingRun run) {
        context.watchWith(world.engine(), new Internal.EngineGone());
        restIn(run.config().isEmpty() ? UNCREATED_IDLE : settings.idleAfter());
        if (run.config().isPresent()) meter.begins(load(run).unfinished());
        begin(run, true, "restarted");
        // What does not exist has nothing to lose, and its first write is the one that creates it.
        begun = run.config().isEmpty();
        if (!begun) context.getSelf().tell(new Internal.Begin());
    }

    /// The journal knows that this entity answers for the run.
    private void begun(TrainingRun run) {
        step = run.recovery().step();
        results.saved(run.recovery().position());
        for (Entry entry : run.line()) {
            switch (entry.outcome()) {
                case Outcome.Failed(var why) -> complete(failure(entry, why));
                case Outcome.Committed(var manifest) ->
                        complete(success(entry, new OperationResult.Saved(manifest)));
                case Outcome.Open _, Outcome.Resolved _, Outcome.Applied _ -> {}
            }
        }
        scheduleExpiry(run);
        index(run);
        advance(run);
    }

    /// Forgets what the engine was given; events of before are not heard any more.
    private void begin(TrainingRun run, boolean cautious, String cause) {
        List<Entry> again = run.line().stream().filter(e -> !e.settled()).toList();
        meter.restarted(cause, again.size(), again.isEmpty() ? 0 : again.getLast().position());
        epoch++;
        opening = false;
        point = Optional.empty();
        // Its events are not heard any more: it must not stay there unheard.
        closeEngine();
        if (listener != null) context.stop(listener);
        long own = epoch;
        ActorRef<Message> self = context.getSelf();
        listener = context.spawnAnonymous(Behaviors.receiveMessage(event -> {
            self.tell(new Internal.FromEngine(own, event));
            return Behaviors.same();
        }));
        line.restart(run, cautious);
        world.solo().leave(this);
    }

    private void advance(TrainingRun run) {
        account(run);
        free(run);
        while (!storing) {
            boolean heavy = results.unsavedBytes() > settings.resultMemoryBytes();
            switch (line.next(run, freeing, heavy)) {
                case EngineLine.Step.Send(var entry, var loaded) ->
                        world.engine().tell(new EngineCommand.Execute(id, entry.position(),
                                entry.operation(), loaded, entry.acceptedAtMillis(), listener));
                case EngineLine.Step.TakePoint(var position) -> {
                    meter.pointOrdered();
                    world.engine().tell(new EngineCommand.TakeRecoveryPoint(id, position, listener));
                }
                case EngineLine.Step.Store(var events) -> {
                    storing = true;
                    context.getSelf().tell(new Internal.Store(epoch, events));
                }
                case EngineLine.Step.Resolve(var entry) -> resolve(run, entry, 1);
                case EngineLine.Step.Open _ -> {
                    open(run);
                    return;
                }
                case EngineLine.Step.Close _ -> {
                    closeEngine();
                    note(RunNote.Kind.EVICTED, Optional.empty(), Map.of());
                }
                case EngineLine.Step.Rest _ -> {
                    if (!unloading.isEmpty()) context.getSelf().tell(new Internal.Close());
                    if (leaving && line.departed(run) && !busyStoring())
                        context.getSelf().tell(new Internal.Left());
                    return;
                }
            }
        }
    }

    private void open(TrainingRun run) {
        if (opening) return;
        opening = true;
        opened = true;
        var config = run.config().orElseThrow();
        world.engine().tell(new EngineCommand.OpenRun(config, run.recovery().lora().orElse(config.lora()),
                run.recovery().state(), listener));
    }

    private void closeEngine() {
        if (opened) world.engine().tell(new EngineCommand.CloseRun(id));
        opened = false;
    }

    private ReplyEffect<RunEvent, TrainingRun> onEngine(TrainingRun run, EngineEvent event) {
        return switch (event) {
            case EngineEvent.Opened _ -> {
                opening = false;
                openAttempts = 0;
                line.opened();
                stalled = Optional.empty();
                meter.goes();
                noteOpened(run);
                yield advancing(run);
            }
            case EngineEvent.OpenFailed(_, var why) -> openFailed(run, why);
            case EngineEvent.Crowded _ -> {
                line.crowded();
                yield advancing(run);
            }
            case EngineEvent.Executed(_, var position, var result) -> executed(run, position, result);
            case EngineEvent.Measured(_, var position, var nanos) -> {
                timings.worked(position, nanos);
                yield Effect().noReply();
            }
            case EngineEvent.Failed(_, var position, var why) -> failed(run, position, why);
            case EngineEvent.RecoveryPointWritten written -> {
                point = Optional.of(written);
                yield Effect().none().thenRun(this::keepPoint).thenNoReply();
            }
            case EngineEvent.RecoveryPointFailed(_, var position, var why) ->
                why.code().equals(EngineCommand.RUN_NOT_OPEN) ? engineLost(run)
                        : pointLost(run, epoch, "at " + position + ": " + why.message());
        };
    }

    private ReplyEffect<RunEvent, TrainingRun> openFailed(TrainingRun run, Fault why) {
        opened = false;
        boolean news = !sameCause(stalled, why);
        if (news) warn("the engine did not open it, code={}: {}", why.code(), why.message());
        boolean full = why.code().equals("out_of_memory");
        // Others are asked to go meanwhile.
        if (why.kind() == Fault.Kind.SERVER && !(full && ++openAttempts >= OPEN_ATTEMPTS)) {
            meter.waits(why);
            if (news) note(RunNote.Kind.WAITING, Optional.empty(),
                    Map.of("code", why.code(), "message", why.message()));
            stalled = Optional.of(why);
            timers.startSingleTimer("reopen", new Internal.Reopen(epoch), settings.retryAfter());
            return Effect().noReply();
        }
        opening = false;
        openAttempts = 0;
        var failures = new ArrayList<RunEvent>();
        for (Entry entry : run.line())
            if (!entry.settled()) failures.add(new OperationFailed(entry.position(), why));
        return store(failures);
    }

    /// Of too little memory each try says other numbers.
    private static boolean sameCause(Optional<Fault> before, Fault why) {
        return before.filter(b -> b.code().equals(why.code())
                && (b.message().equals(why.message()) || b.code().equals("out_of_memory"))).isPresent();
    }

    private ReplyEffect<RunEvent, TrainingRun> executed(TrainingRun run, long position,
            OperationResult result) {
        if (!line.awaits(position)) return Effect().noReply();
        finished(position);
        Entry entry = run.at(position).orElseThrow();
        meter.executed(entry.kind(), position);
        return switch (result) {
            case OperationResult.Saved(var manifest) ->
                store(List.of(new CheckpointCommitted(position, manifest, session(run, entry, manifest))));
            case OperationResult.Loaded(_, var at) -> {
                step = at;
                line.wantPoint();
                complete(success(entry, result));
                yield entry.outcome() instanceof Outcome.Applied
                        ? going(run) : store(List.of(new LoadApplied(position)));
            }
            case OperationResult.Stepped(var at, _) -> {
                step = at;
                complete(success(entry, result));
                yield going(run);
            }
            case OperationResult.Evaluated _ -> {
                complete(success(entry, result));
                yield going(run);
            }
        };
    }

    private void finished(long position) {
        boolean tried = line.tries();
        line.finished(position);
        if (tried) world.solo().leave(this);
    }

    private ReplyEffect<RunEvent, TrainingRun> going(TrainingRun run) {
        return Effect().none().thenRun((TrainingRun now) -> {
            keepPoint(now);
            advance(now);
        }).thenNoReply();
    }

    private Optional<String> session(TrainingRun run, Entry entry, CheckpointManifest manifest) {
        if (manifest.name().isPresent()) return Optional.empty();
        Optional<String> asked = entry.operation() instanceof StoredOperation.Inline(var kind, var encoded)
                && StoredOperations.decode(kind, encoded)
                        instanceof Operation.SaveSamplerWeights(_, _, var session)
                ? session : Optional.empty();
        return asked.or(() -> run.config().map(c -> c.session()));
    }

    private ReplyEffect<RunEvent, TrainingRun> failed(TrainingRun run, long position, Fault why) {
        if (why.code().equals(EngineCommand.RUN_NOT_OPEN)) return engineLost(run);
        if (!line.awaits(position)) return Effect().noReply();
        Entry entry = run.at(position).orElseThrow();
        // What was accepted is there, and may have been executed before: it waits until it can be read.
        if (why.code().equals(EngineCommand.STORE_FAILED) && !EngineLine.saves(entry.kind())) {
            warn("operation {} waits: {}", position, why.message());
            return reopenLater(run, false, "store_failed");
        }
        finished(position);
        List<RunEvent> events = stamped(List.of(new OperationFailed(position, why)));
        long began = meter.now();
        return Effect().persist(events).thenRun((TrainingRun now) -> {
            meter.stored(began);
            // What the engine has executed since went past the failure: begin again, up to it.
            if (TrainingRun.poisons(entry, why) && line.aheadOf(position))
                begin(now, false, "operation_failed");
            stored(now, events);
            keepPoint(now);
        }).thenNoReply();
    }

    private ReplyEffect<RunEvent, TrainingRun> engineLost(TrainingRun run) {
        warn("the engine lost it; it is opened again");
        note(RunNote.Kind.LEFT_ENGINE, Optional.empty(), Map.of("message", "the engine lost it"));
        return reopenLater(run, true, "engine_lost");
    }

    private ReplyEffect<RunEvent, TrainingRun> reopenLater(TrainingRun run, boolean cautious, String cause) {
        begin(run, cautious, cause);
        opening = true;
        timers.startSingleTimer("reopen", new Internal.Reopen(epoch), settings.retryAfter());
        return Effect().noReply();
    }

    // Loads

    private void resolve(TrainingRun run, Entry entry, int attempt) {
        long at = epoch;
        long position = entry.position();
        if (!(entry.operation() instanceof StoredOperation.Inline(var kind, var encoded)
                && StoredOperations.decode(kind, encoded)
                        instanceof Operation.LoadState(var path, var optimizer))) {
            context.getSelf().tell(new Internal.LoadFailed(at, position,
                    Fault.server("unreadable_operation", "the load cannot be read")));
            return;
        }
        if (path.run().equals(id)) {
            context.getSelf().tell(loadReply(at, position, optimizer,
                    found(run.checkpoints().resolve(path, now()), path + " does not exist or was deleted")));
            return;
        }
        context.pipeToSelf(world.resolver().resolve(run.config().orElseThrow().owner(), path),
                (reply, failure) -> {
                    boolean answered = failure == null && !(reply instanceof RunReply.Refused(var reason, _)
                            && reason == Reason.UNAVAILABLE);
                    if (answered) return loadReply(at, position, optimizer, reply);
                    if (attempt < RESOLVE_ATTEMPTS)
                        return new Internal.ResolveLater(at, position, attempt + 1);
                    return new Internal.LoadFailed(at, position, Fault.server("checkpoint_unavailable",
                            "nobody could say where " + path + " is; try again later"));
                });
    }

    private static Internal loadReply(long epoch, long position, boolean optimizer, RunReply reply) {
        return switch (reply) {
            case RunReply.Resolved(var manifest) ->
                    new Internal.LoadFound(epoch, position, optimizer, manifest);
            case RunReply.Refused(_, var message) ->
                new Internal.LoadFailed(epoch, position, Fault.user("checkpoint_not_found", message));
            default -> new Internal.LoadFailed(epoch, position,
                    Fault.server("checkpoint_unavailable", "unexpected answer " + reply));
        };
    }

    private ReplyEffect<RunEvent, TrainingRun> resolved(RunEvent outcome) {
        line.resolved();
        return store(List.of(outcome));
    }

    // Recovery points

    /// Keeps the point that the engine has written as soon as all before it is finished.
    private void keepPoint(TrainingRun run) {
        if (point.isEmpty() || keepingPoint) return;
        var reached = point.get();
        for (long at = run.recovery().position() + 1; at <= reached.position(); at++)
            if (!done.contains(at)) return;
        point = Optional.empty();
        keepingPoint = true;
        long at = epoch;
        var pages = ResultsPages.next(id, results, run.recovery().allPages(), reached.position());
        context.pipeToSelf(world.later(() -> pages.write(world.blobs())),
                (written, failure) -> failure == null
                        ? new Internal.PointKept(at, reached, results.kept(written))
                : new Internal.PointLost(at, "its results cannot be stored: " + failure));
    }

    private ReplyEffect<RunEvent, TrainingRun> pointKept(TrainingRun run, long at,
            EngineEvent.RecoveryPointWritten reached, List<ResultsPage> pages) {
        keepingPoint = false;
        // The engine's copy is another one by now, and may have written a point that has waited for this.
        if (at != epoch) return going(run);
        line.pointDone();
        return store(List.of(new RecoveryPointReached(reached.position(), reached.state(), reached.step(),
                reached.lora(), Optional.empty(), pages)));
    }

    private ReplyEffect<RunEvent, TrainingRun> pointLost(TrainingRun run, long at, String why) {
        keepingPoint = false;
        warn("a recovery point is lost, the journal stays longer: {}", why);
        meter.pointFailed();
        note(RunNote.Kind.RECOVERY_POINT_FAILED, Optional.empty(), Map.of("message", why));
        if (at == epoch) line.pointFailed();
        if (leaving) context.getSelf().tell(new Internal.Left());
        timers.startSingleTimer("point", new Internal.PointsAgain(), settings.retryAfter());
        return going(run);
    }

    // Garbage, index, time

    /// Deletes what nothing refers to, while nothing is being written that could refer to it.
    private void free(TrainingRun run) {
        if (freeing || freeLater || keepingPoint || point.isPresent()
                || run.garbage().isEmpty() || line.writing())
            return;
        freeing = true;
        List<BlobId> blobs = run.garbage();
        context.pipeToSelf(world.later(() -> {
            // What an entity of before deletes late may be there anew.
            for (BlobId blob : blobs) if (living.get()) world.blobs().delete(blob);
            return blobs;
        }), (freed, failure) -> failure == null
                ? new Internal.Freed(freed) : new Internal.NotFreed(failure.toString()));
    }

    private ReplyEffect<RunEvent, TrainingRun> notFreed(String why) {
        freeing = false;
        freeLater = true;
        warn("blobs cannot be deleted yet: {}", why);
        return Effect().none().thenRun((TrainingRun now) -> {
            advance(now);
            freeLater = false;
            timers.startSingleTimer("free", new Internal.Advance(), settings.retryAfter());
        }).thenNoReply();
    }

    private void index(TrainingRun run) {
        if (indexing) {
            indexAgain = true;
            return;
        }
        indexing = true;
        long version = lastSequenceNumber(context);
        var summary = new RunSummary(run.config().orElseThrow(), run.lora().orElseThrow(),
                step, run.lastRequestMillis(), run.checkpoints().current(now()), run.closed());
        context.pipeToSelf(world.later(() -> {
            world.index().put(summary, version);
            return version;
        }), (written, failure) -> new Internal.Indexed(version,
                Optional.ofNullable(failure).map(Throwable::toString)));
    }

    private ReplyEffect<RunEvent, TrainingRun> indexed(TrainingRun run, long version,
            Optional<String> failure) {
        indexing = false;
        failure.ifPresent(why ->
                warn("the index does not show its last change: {}", why));
        return Effect().none().thenRun((TrainingRun now) -> {
            // A save is done once lists show it; an index that fails must not hold it up.
            for (PendingSave save : List.copyOf(pendingSaves)) {
                if (save.version() > version && failure.isEmpty()) continue;
                pendingSaves.remove(save);
                complete(save.kept());
            }
            if (indexAgain) {
                indexAgain = false;
                index(now);
            }
            keepPoint(now);
            advance(now);
        }).thenNoReply();
    }

    private void scheduleExpiry(TrainingRun run) {
        run.checkpoints().nextExpiry().ifPresentOrElse(at -> timers.startSingleTimer("expiry",
                new Internal.Expire(), Duration.ofMillis(Math.clamp(at - now(), 1, 3_600_000))),
                () -> timers.cancel("expiry"));
    }

    private long now() {
        return world.clock().millis();
    }

    // The end

    private ReplyEffect<RunEvent, TrainingRun> close(TrainingRun run) {
        if (unloading.isEmpty() || load(run).unfinished() > 0 || keepingPoint || storing)
            return Effect().noReply();
        List<RunEvent> events = stamped(List.of(new RunClosed(now())));
        long began = meter.now();
        return Effect().persist(events).thenRun((TrainingRun now) -> {
            meter.stored(began);
            epoch++;
            point = Optional.empty();
            closeEngine();
            unloading.forEach(replyTo -> replyTo.tell(new RunReply.Done()));
            unloading.clear();
            line.restart(now, false);
            stored(now, events);
        }).thenNoReply();
    }

    private boolean busyStoring() {
        return storing || keepingPoint || point.isPresent() || !pendingSaves.isEmpty();
    }

    /// Whoever waits asks again, and is answered where the run comes back.
    private ReplyEffect<RunEvent, TrainingRun> leave(TrainingRun run) {
        if (leaving) return Effect().noReply();
        leaving = true;
        if (opened && !resting) note(RunNote.Kind.DRAINING, Optional.empty(), Map.of());
        line.depart();
        timers.startSingleTimer("leave", new Internal.Left(), settings.leaveWithin());
        waiters.forEach((seq, waited) -> waited.forEach(waiter -> {
            timers.cancel(waiter.id());
            waiter.replyTo().tell(pending(run, seq));
        }));
        waiters.clear();
        return advancing(run);
    }

    private void restIn(Duration time) {
        timers.startSingleTimer("idle", new Internal.Idle(), time);
    }

    private ReplyEffect<RunEvent, TrainingRun> idle(TrainingRun run) {
        boolean busy = load(run).unfinished() > 0 || !waiters.isEmpty() || !unloading.isEmpty() || storing
                || keepingPoint || freeing || indexing || !line.idle();
        boolean dirty = run.line().stream().anyMatch(e -> !e.settled());
        if (busy || dirty) {
            if (!busy) line.wantPoint();
            restIn(busy ? settings.idleAfter() : POINT_WAIT);
            return advancing(run);
        }
        if (!opened || shard.isEmpty()) {
            passivate();
            return Effect().noReply();
        }
        // It was in the engine: its history says that it left.
        meter.passivated();
        return Effect().persist(List.<RunEvent>of(new Noted(noted(RunNote.Kind.PASSIVATED, Optional.empty(),
                Map.of())))).thenRun((TrainingRun _) -> passivate()).thenNoReply();
    }

    private void passivate() {
        resting = shard.isPresent();
        shard.ifPresent(s -> s.tell(new ClusterSharding.Passivate<>(context.getSelf())));
    }
}
