package bios.coordinator.run;

import bios.coordinator.NodeName;
import bios.coordinator.run.RunEvent.*;
import bios.persistence.journal.JournalPruning;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunId;
import bios.protocol.run.RunNote;
import bios.protocol.wire.Message;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
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
/// engine beside it, and answers for their outcomes. What comes next for the engine, [EngineLine] says; each
/// other part keeps what concerns it ([Requests], [EngineAnswers], [Outcomes], [RecoveryPoints] and others)
/// and says by [Next] what follows. Here are the effects, and what follows from stored events.
public final class TrainingRunEntity
        extends EventSourcedBehaviorWithEnforcedReplies<Message, RunEvent, TrainingRun> {
    private static final Duration UNCREATED_IDLE = Duration.ofSeconds(5);
    private static final Duration POINT_WAIT = Duration.ofSeconds(1);
    private static final int STASH = 100_000;
    /// A run that only rests and is woken has a snapshot every so many events.
    private static final int SNAPSHOT_OF_BEGINNINGS = 100;

    private final RunId id;
    private final RunWorld world;
    private final RunSettings settings;
    private final RunContext context;
    private final RunMeter meter;
    private final Optional<ActorRef<ClusterSharding.ShardCommand>> shard;

    private final Timings timings;
    private final EngineLine line;
    private final EngineCopy copy;
    private final Waiters waiters;
    private final Outcomes outcomes;
    private final PageSearch pages;
    private final RecoveryPoints points;
    private final Loads loads;
    private final Garbage garbage;
    private final IndexWriter index;
    private final Departure departure;
    private final Requests requests;
    private final EngineAnswers answers;
    private long lastSnapshot;
    private boolean begun;
    /// Whether events that the line waits for are on their way into the journal.
    private boolean storing;

    private TrainingRunEntity(RunId id, PersistenceId persistenceId, RunWorld world,
            ActorContext<Message> actor, TimerScheduler<Message> timers,
            Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        super(persistenceId);
        this.id = id;
        this.world = world;
        this.settings = world.settings();
        this.meter = new RunMeter(id.slug(), world.nanos());
        this.context = new RunContext(id, world, NodeName.of(actor.getSystem()), meter, actor, timers);
        this.shard = shard;
        this.timings = new Timings(world.nanos());
        this.line = new EngineLine(settings, () -> world.solo().take(this,
                () -> context.tell(new Internal.Advance())));
        this.copy = new EngineCopy(context, line, this);
        this.waiters = new Waiters(context);
        this.outcomes = new Outcomes(context, timings, waiters);
        this.pages = new PageSearch(context, outcomes, waiters);
        this.points = new RecoveryPoints(context, line, copy, outcomes);
        this.loads = new Loads(context, line, copy);
        this.garbage = new Garbage(context);
        this.index = new IndexWriter(context);
        this.departure = new Departure(context, line, copy, waiters);
        this.requests = new Requests(context, timings, outcomes, waiters, pages, copy, departure);
        this.answers = new EngineAnswers(context, timings, line, copy, outcomes, points, departure);
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
                    context.warn("its snapshot failed, the journal stays longer: {}",
                            failed.failure().toString());
                })
                .onSignal(RecoveryFailed.class, (_, failed) -> journalFailed("recover", failed.getFailure()))
                .onSignal(JournalPersistFailed.class,
                        (_, failed) -> journalFailed("write", failed.failure()))
                .onSignal(JournalPersistRejected.class,
                        (_, rejected) -> journalFailed("write", rejected.failure()))
                .onSignal(PreRestart.instance(), _ -> ended())
                .onSignal(PostStop.instance(), _ -> {
                    ended();
                    meter.ends();
                    copy.close();
                }).build();
    }

    private void ended() {
        garbage.end();
        outcomes.end();
        world.solo().leave(this);
    }

    /// Deletes what the snapshot before the last one has made superfluous. An entity that begins elsewhere
    /// while this one is only believed dead may have read that snapshot and not yet the events behind it.
    private void prune(long snapshot) {
        if (lastSnapshot > 0)
            JournalPruning.before(context.actor().getSystem(), persistenceId().id(), lastSnapshot);
        lastSnapshot = snapshot;
    }

    private void journalFailed(String action, Throwable failure) {
        meter.refused(action);
        context.warn("the journal did not answer, the run begins again: {}", failure.toString());
    }

    @Override public CommandHandlerWithReply<Message, RunEvent, TrainingRun> commandHandler() {
        return (run, message) -> switch (message) {
            case RunCommand _ when !begun -> Effect().stash();
            case RunCommand command -> {
                restIn(run.config().isEmpty() ? UNCREATED_IDLE : settings.idleAfter());
                yield carryOut(requests.on(run, command));
            }
            case Internal internal -> onInternal(run, internal);
            default -> throw new IllegalStateException("not for a run: " + message);
        };
    }

    // From itself

    private ReplyEffect<RunEvent, TrainingRun> onInternal(TrainingRun run, Internal message) {
        return switch (message) {
            case Internal.Begin _ -> {
                begun = true;
                yield Effect().persist(List.<RunEvent>of(new EntityBegan(context.now())))
                        .thenRun(this::begun).thenNoReply().thenUnstashAll();
            }
            case Internal.Advance _ -> advancing();
            case Internal.Store(var at, var events) -> {
                storing = false;
                yield at == copy.epoch() ? store(events) : advancing();
            }
            case Internal.FromEngine(var at, var event) ->
                    at == copy.epoch() ? carryOut(answers.on(run, event)) : Effect().noReply();
            case Internal.EngineGone _ -> carryOut(answers.lost(run));
            case Internal.Reopen(var at) -> {
                copy.mayReopen(at);
                yield advancing();
            }
            case Internal.LoadFound found -> carryOut(loads.found(run, found));
            case Internal.LoadFailed failed -> carryOut(loads.failed(failed));
            case Internal.ResolveLater asked -> carryOut(loads.later(asked));
            case Internal.ResolveAgain again -> carryOut(loads.again(run, again));
            case Internal.PointKept kept -> carryOut(points.kept(kept));
            case Internal.PointLost lost -> carryOut(answers.pointLost(lost));
            case Internal.Freed(var blobs) -> {
                garbage.freed();
                yield store(List.of(new BlobsFreed(blobs)));
            }
            case Internal.NotFreed(var why) -> {
                garbage.notFreed(why);
                yield advancing();
            }
            case Internal.FreeAgain _ -> {
                garbage.again();
                yield advancing();
            }
            case Internal.PageRead read -> {
                pages.over(run, read);
                yield Effect().noReply();
            }
            case Internal.PagesAgain _ -> {
                pages.forWaiters(run);
                yield Effect().noReply();
            }
            case Internal.PointsAgain _ -> {
                line.pointsAgain();
                yield advancing();
            }
            case Internal.Shrink _ -> {
                if (outcomes.shrink()) line.wantPoint();
                yield advancing();
            }
            case Internal.Indexed(var version, var failure) -> indexed(version, failure);
            case Internal.WaitOver over -> carryOut(requests.over(run, over));
            case Internal.Answer(var kept, var replyTo) -> carryOut(requests.answer(run, kept, replyTo));
            case Internal.Idle _ -> carryOut(idle(run));
            case Internal.Expire _ -> {
                scheduleExpiry(run);
                boolean due = run.checkpoints().nextExpiry().filter(at -> at <= context.now()).isPresent();
                yield due ? store(List.of(new CheckpointsExpired(context.now()))) : Effect().noReply();
            }
            case Internal.Note(var notes) -> note(run, notes);
            case Internal.Close _ -> close(run);
            case Internal.Left _ -> {
                // Work was accepted on the way to rest. (A run that moves begins again where its shard goes.)
                if (departure.resting() && outcomes.load(run).unfinished() > 0) world.waker().accept(id);
                yield Effect().stop().thenNoReply();
            }
        };
    }

    // Effects

    private ReplyEffect<RunEvent, TrainingRun> carryOut(Next next) {
        return switch (next) {
            case Next.Rest _ -> Effect().noReply();
            case Next.Advance _ -> advancing();
            case Next.KeepPoint _ -> Effect().none().thenRun(points::keep).thenNoReply();
            case Next.Go _ -> Effect().none().thenRun((TrainingRun now) -> {
                points.keep(now);
                advance(now);
            }).thenNoReply();
            case Next.Store(var events) -> store(events);
            case Next.StoreFailure(var failed, var poisons) -> persist(List.of(failed), now -> {
                // What the engine has executed since went past the failure: begin again, up to it.
                if (!poisons || !line.aheadOf(failed.position())) return;
                points.forget();
                copy.begin(now, false, "operation_failed");
            }).thenRun(points::keep).thenNoReply();
            case Next.StoreAndReply(var events, var to, var reply) ->
                persist(events, _ -> {}).thenReply(to, reply::apply);
            case Next.Reply(var to, var reply) -> Effect().reply(to, reply);
            case Next.Passivate(var events) -> events.isEmpty()
                    ? Effect().none().thenRun((TrainingRun _) -> passivate()).thenNoReply()
                    : Effect().persist(events).thenRun((TrainingRun _) -> passivate()).thenNoReply();
        };
    }

    private ReplyEffect<RunEvent, TrainingRun> advancing() {
        return Effect().none().thenRun(this::advance).thenNoReply();
    }

    private ReplyEffect<RunEvent, TrainingRun> store(List<RunEvent> events) {
        return persist(events, _ -> {}).thenNoReply();
    }

    /// @param first what is done before all that follows from the events
    private EffectBuilder<RunEvent, TrainingRun> persist(List<RunEvent> events, Consumer<TrainingRun> first) {
        List<RunEvent> stamped = stamped(events);
        long began = meter.now();
        return Effect().persist(stamped).thenRun((TrainingRun now) -> {
            meter.stored(began);
            first.accept(now);
            stored(now, stamped);
        });
    }

    private List<RunEvent> stamped(List<RunEvent> events) {
        var stamp = new RunEvent.Stamp(context.now(), context.node());
        return events.stream().map(event -> event.stamped(stamp)).toList();
    }

    /// What the newest entry says already is not said again.
    private ReplyEffect<RunEvent, TrainingRun> note(TrainingRun run, List<RunNote> notes) {
        boolean said = run.config().isEmpty()
                || notes.size() == 1 && RunHistory.says(run.history(), notes.getFirst());
        return said ? Effect().noReply() : store(notes.stream().<RunEvent>map(Noted::new).toList());
    }

    /// What follows from events that the journal now holds.
    private void stored(TrainingRun run, List<RunEvent> events) {
        boolean shown = false;
        for (RunEvent event : events) {
            switch (event) {
                case OperationFailed(var at, var why, _) -> {
                    meter.failed(why);
                    run.at(at).ifPresent(e -> outcomes.complete(Outcomes.failure(e, why)));
                }
                case CheckpointCommitted(var at, var manifest, _, _) -> {
                    Entry entry = run.at(at).orElseThrow();
                    index.await(lastSequenceNumber(context.actor()),
                            Outcomes.success(entry, new OperationResult.Saved(manifest)));
                    shown = true;
                    scheduleExpiry(run);
                }
                case OperationAccepted e -> {
                    meter.accepted(e.operation().kind());
                    timings.stored(e.position(), e.seq(), e.operation().kind());
                }
                case RecoveryPointReached e -> {
                    meter.pointStored(e.state().bytes());
                    outcomes.saved(e.position());
                    shown = true;
                }
                case RunCreated _ -> {
                    meter.begins(0);
                    shown = true;
                }
                case CheckpointDeleted _, CheckpointsExpired _, RunClosed _ -> shown = true;
                case ExpirySet _ -> {
                    shown = true;
                    scheduleExpiry(run);
                }
                case LoadResolved _, LoadApplied _, ErrorSeen _, SnapshotsReleased _,
                        OperationAttempted _, ReplayBegan _, ReplayFinished _, BlobsFreed _, EntityBegan _,
                        Noted _ -> {}
            }
        }
        if (shown) index(run);
        advance(run);
    }

    // The line

    private void recovered(TrainingRun run) {
        context.actor().watchWith(world.engine(), new Internal.EngineGone());
        restIn(run.config().isEmpty() ? UNCREATED_IDLE : settings.idleAfter());
        if (run.config().isPresent()) meter.begins(outcomes.load(run).unfinished());
        copy.begin(run, true, "restarted");
        // What does not exist has nothing to lose, and its first write is the one that creates it.
        begun = run.config().isEmpty();
        if (!begun) context.tell(new Internal.Begin());
    }

    /// The journal knows that this entity answers for the run.
    private void begun(TrainingRun run) {
        outcomes.begin(run);
        scheduleExpiry(run);
        index(run);
        advance(run);
    }

    private void advance(TrainingRun run) {
        outcomes.account(run);
        garbage.free(run, points.underWay() || line.writing());
        while (!storing) {
            switch (line.next(run, garbage.freeing(), outcomes.heavy())) {
                case EngineLine.Step.Send send -> copy.execute(send);
                case EngineLine.Step.TakePoint(var position) -> copy.takePoint(position);
                case EngineLine.Step.Store(var events) -> {
                    storing = true;
                    context.tell(new Internal.Store(copy.epoch(), events));
                }
                case EngineLine.Step.Resolve(var entry) -> loads.find(run, entry, 1);
                case EngineLine.Step.Open _ -> {
                    copy.open(run);
                    return;
                }
                case EngineLine.Step.Close _ -> {
                    copy.close();
                    context.note(RunNote.Kind.EVICTED, Optional.empty(), Map.of());
                }
                case EngineLine.Step.Rest _ -> {
                    departure.atRest(run, storing || points.underWay() || index.savesWait());
                    return;
                }
            }
        }
    }

    private void index(TrainingRun run) {
        index.write(run, outcomes.step(), lastSequenceNumber(context.actor()));
    }

    private ReplyEffect<RunEvent, TrainingRun> indexed(long version, Optional<String> failure) {
        index.written(failure);
        return Effect().none().thenRun((TrainingRun now) -> {
            index.done(version, failure.isPresent()).forEach(outcomes::complete);
            if (index.again()) index(now);
            points.keep(now);
            advance(now);
        }).thenNoReply();
    }

    private void scheduleExpiry(TrainingRun run) {
        run.checkpoints().nextExpiry().ifPresentOrElse(
                at -> context.after(Duration.ofMillis(Math.clamp(at - context.now(), 1, 3_600_000)), "expiry",
                        new Internal.Expire()),
                () -> context.cancel("expiry"));
    }

    // The end

    private ReplyEffect<RunEvent, TrainingRun> close(TrainingRun run) {
        if (!departure.unloading() || outcomes.load(run).unfinished() > 0 || points.keeping() || storing)
            return Effect().noReply();
        return persist(List.of(new RunClosed(context.now())), now -> {
            points.forget();
            copy.end(now);
            departure.unloaded();
        }).thenNoReply();
    }

    private void restIn(Duration time) {
        context.after(time, "idle", new Internal.Idle());
    }

    private Next idle(TrainingRun run) {
        boolean busy = outcomes.load(run).unfinished() > 0 || !waiters.isEmpty() || departure.unloading()
                || storing || points.keeping() || garbage.freeing() || index.writing() || !line.idle();
        boolean dirty = run.line().stream().anyMatch(e -> !e.settled());
        if (!busy && !dirty) return departure.passivate(shard.isPresent());
        if (!busy) line.wantPoint();
        restIn(busy ? settings.idleAfter() : POINT_WAIT);
        return new Next.Advance();
    }

    private void passivate() {
        if (shard.isEmpty()) return;
        departure.rests();
        shard.get().tell(new ClusterSharding.Passivate<>(context.actor().getSelf()));
    }
}
