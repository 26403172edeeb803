package bios.coordinator.session;

import bios.coordinator.DamagedEntities;
import bios.coordinator.Metrics;
import bios.coordinator.SnapshotInterval;
import bios.coordinator.session.Session.Decision;
import bios.coordinator.session.SessionEvent.SessionEnded;
import bios.coordinator.session.SessionEvent.SessionOpened;
import bios.persistence.journal.JournalPruning;
import bios.protocol.Fault;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import bios.protocol.wire.Message;
import java.time.Duration;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
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
import org.apache.pekko.persistence.typed.javadsl.CommandHandlerWithReply;
import org.apache.pekko.persistence.typed.javadsl.EffectBuilder;
import org.apache.pekko.persistence.typed.javadsl.EventHandler;
import org.apache.pekko.persistence.typed.javadsl.EventSourcedBehaviorWithEnforcedReplies;
import org.apache.pekko.persistence.typed.javadsl.ReplyEffect;
import org.apache.pekko.persistence.typed.javadsl.SignalHandler;

/// The entity of one [Session]. It ends after its client has sent nothing for the configured time: its runs
/// release the snapshots of the session, then its journal is deleted.
public final class SessionEntity
        extends EventSourcedBehaviorWithEnforcedReplies<Message, SessionEvent, Session> {
    /// An entity of a session that was never opened stops at once, so that sharding forgets it.
    private static final Duration UNOPENED_IDLE = Duration.ofMillis(10);
    private static final Duration ENDED_IDLE = Duration.ofSeconds(5);
    private static final String IDLE_TIMER = "idle";

    /// Messages of the entity to itself.
    private sealed interface SelfMessage extends Message {
        /// @param opened whether the session was open when the timer was started
        record IdleTimeout(boolean opened) implements SelfMessage {}

        record SnapshotsReleased(boolean all) implements SelfMessage {}
    }

    private final String id;
    private final SessionSettings settings;
    private final SnapshotReleaser releaser;
    private final InstantSource clock;
    private final ActorContext<Message> context;
    private final TimerScheduler<Message> timers;
    private final Optional<ActorRef<ClusterSharding.ShardCommand>> shard;
    private final SamplerUses uses = new SamplerUses();
    private boolean ending;

    private SessionEntity(String id, PersistenceId persistenceId, SessionSettings settings,
            SnapshotReleaser releaser, InstantSource clock, ActorContext<Message> context,
            TimerScheduler<Message> timers, Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        super(persistenceId, DamagedEntities.get(context.getSystem()).supervision(persistenceId.id()));
        this.id = id;
        this.settings = settings;
        this.releaser = releaser;
        this.clock = clock;
        this.context = context;
        this.timers = timers;
        this.shard = shard;
    }

    /// Creates the entity of session `id`.
    ///
    /// @param shard passivates the entity after the session has ended; empty: never passivated
    public static Behavior<SessionCommand> create(String id, PersistenceId persistenceId,
            SessionSettings settings, SnapshotReleaser releaser, InstantSource clock,
            Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        Behavior<Message> behavior = Behaviors.setup(context -> Behaviors.withTimers(timers ->
                new SessionEntity(id, persistenceId, settings, releaser, clock, context, timers, shard)));
        return behavior.narrow();
    }

    @Override public Session emptyState() {
        return Session.NONE;
    }

    @Override public EventHandler<Session, SessionEvent> eventHandler() {
        return Session::apply;
    }

    @Override public boolean shouldSnapshot(Session session, SessionEvent event, long sequenceNr) {
        return event instanceof SessionEnded || SnapshotInterval.isOver(sequenceNr, settings.snapshotEvery(),
                session.samplers().size() + session.runs().size());
    }

    @Override public SignalHandler<Session> signalHandler() {
        return newSignalHandlerBuilder().onSignal(RecoveryCompleted.instance(),
                this::onRecovered)
                .onSignal(SnapshotCompleted.class, this::onSnapshotCompleted)
                .onSignal(RecoveryFailed.class, (_, failed) ->
                onRecoveryFailed(failed.getFailure()))
                .onSignal(JournalPersistFailed.class, (_, failed) ->
                onJournalFailed("write", failed.failure()))
                .onSignal(JournalPersistRejected.class, (_, failed) ->
                onJournalFailed("write", failed.failure()))
                .build();
    }

    private void onRecovered(Session session) {
        DamagedEntities.get(context.getSystem()).recovered(persistenceId().id());
        startIdleTimer(session);
    }

    private void onRecoveryFailed(Throwable failure) {
        boolean damaged = DamagedEntities.get(context.getSystem()).recoveryFailed(persistenceId().id(),
                "session " + id, failure,
                what -> context.getLog().atWarn().addKeyValue("session", id).log("{}", what));
        if (damaged) Metrics.JOURNAL_FAILURES.labelValues("session", "recover").inc();
        else onJournalFailed("recover", failure);
    }

    /// Refuses a command for a session that cannot be read from the journal.
    static boolean refuse(SessionCommand command, String what) {
        var refused = new SessionReply.Refused(Fault.server("session_damaged", what));
        (switch (command) {
            case SessionCommand.Open c -> c.replyTo();
            case SessionCommand.Heartbeat c -> c.replyTo();
            case SessionCommand.AddRun c -> c.replyTo();
            case SessionCommand.OpenSampler c -> c.replyTo();
            case SessionCommand.FindSampler c -> c.replyTo();
            case SessionCommand.Describe c -> c.replyTo();
            case SessionCommand.SetProject c -> c.replyTo();
        }).tell(refused);
        return true;
    }

    private void onJournalFailed(String action, Throwable failure) {
        Metrics.JOURNAL_FAILURES.labelValues("session", action).inc();
        context.getLog().atWarn().addKeyValue("session", id)
                .log("journal failed, the entity restarts: {}", failure.toString());
    }

    private EffectBuilder<SessionEvent, Session> persist(List<SessionEvent> events) {
        long began = System.nanoTime(); // edge: measures only
        return Effect().persist(events).thenRun((Session _) -> {
            double seconds = (System.nanoTime() - began) / 1e9; // edge: measures only
            Metrics.JOURNAL_WRITE_SECONDS.labelValues("session").observe(seconds);
        });
    }

    private void onSnapshotCompleted(Session session, SnapshotCompleted taken) {
        if (session.ended()) JournalPruning.all(context.getSystem(), persistenceId().id());
        else JournalPruning.before(context.getSystem(), persistenceId().id(), taken.metadata().sequenceNr());
    }

    private void startIdleTimer(Session session) {
        boolean opened = session.opened().isPresent();
        timers.startSingleTimer(IDLE_TIMER, new SelfMessage.IdleTimeout(opened), !opened ? UNOPENED_IDLE
                : session.ended() ? ENDED_IDLE : settings.endsAfter());
    }

    @Override public CommandHandlerWithReply<Message, SessionEvent, Session> commandHandler() {
        return (session, message) -> switch (message) {
            case SessionCommand command -> onCommand(session, command);
            case SelfMessage.IdleTimeout(var opened) -> opened == session.opened().isPresent()
                    ? onIdleTimeout(session) : Effect().noReply();
            case SelfMessage.SnapshotsReleased(var all) -> onSnapshotsReleased(all);
            default -> throw new IllegalStateException("unexpected message: " + message);
        };
    }

    private ReplyEffect<SessionEvent, Session> onCommand(Session session, SessionCommand command) {
        return switch (command) {
            case SessionCommand.Open(var owner, var tags, var metadata, var sdk, var now, var project,
                    var replyTo) -> carryOut(session.open(new SessionOpened(owner, tags, metadata, sdk, now,
                            project)), replyTo, this::describe);
            case SessionCommand.SetProject(var owner, var project, var replyTo) ->
                    carryOut(session.setProject(owner, project), replyTo, this::describe);
            case SessionCommand.Heartbeat(var owner, var replyTo) ->
                    carryOut(session.checkOwner(owner), replyTo, this::describe);
            case SessionCommand.AddRun(var owner, var run, var replyTo) ->
                carryOut(session.add(owner, run, settings), replyTo, this::describe);
            case SessionCommand.OpenSampler(var owner, var seq, var sampler, var replyTo) ->
                carryOut(session.openSampler(owner, seq, sampler, () -> uses.longestAgo(session),
                        settings), replyTo, now -> sampler(now, seq));
            case SessionCommand.FindSampler(var owner, var seq, var replyTo) ->
                carryOut(session.find(owner, seq), replyTo, now -> sampler(now, seq));
            case SessionCommand.Describe(var owner, var replyTo) ->
                    carryOut(session.checkOwner(owner), replyTo, this::describe);
        };
    }

    private interface ReplyFactory {
        SessionReply create(Session session);
    }

    private ReplyEffect<SessionEvent, Session> carryOut(Decision decision,
            ActorRef<SessionReply> replyTo, ReplyFactory reply) {
        // No command is accepted while the snapshots are being released.
        if (ending) return Effect().reply(replyTo,
                new SessionReply.Refused(Fault.user("not_found", "the session has ended; open a new one")));
        return switch (decision) {
            case Decision.Accept(var events) ->
                    (events.isEmpty() ? Effect().none() : persist(events))
                            .thenRun(this::startIdleTimer).thenReply(replyTo, reply::create);
            case Decision.Refuse(var why) -> Effect().reply(replyTo, new SessionReply.Refused(why));
        };
    }

    private SessionReply describe(Session session) {
        return new SessionReply.Described(id, session.runs(),
                session.samplers().keySet().stream().map(this::samplerId).toList(), session.project());
    }

    private SessionReply sampler(Session session, long seq) {
        uses.use(seq);
        return new SessionReply.SamplerOpened(samplerId(seq), session.samplers().get(seq));
    }

    private String samplerId(long seq) {
        return id + ":sample:" + seq;
    }

    private ReplyEffect<SessionEvent, Session> onIdleTimeout(Session session) {
        if (session.opened().isEmpty() || session.ended()) {
            shard.ifPresent(s -> s.tell(new ClusterSharding.Passivate<>(context.getSelf())));
            return Effect().noReply();
        }
        ending = true;
        String owner = session.opened().get().owner();
        CompletionStage<Boolean> all = session.runs().stream().map(run -> releaser.release(owner, run, id))
                .reduce(CompletableFuture.completedStage(true),
                        (a, b) -> a.thenCombine(b, Boolean::logicalAnd));
        context.pipeToSelf(all, (done, failure) ->
                new SelfMessage.SnapshotsReleased(failure == null && done));
        return Effect().noReply();
    }

    private ReplyEffect<SessionEvent, Session> onSnapshotsReleased(boolean all) {
        if (!all) {
            context.getLog().atWarn().addKeyValue("session", id)
                    .log("some runs have not released their snapshots; retrying");
            timers.startSingleTimer(IDLE_TIMER, new SelfMessage.IdleTimeout(true), settings.retryAfter());
            return Effect().noReply();
        }
        return persist(List.of(new SessionEnded(clock.millis()))).thenRun((Session ended) -> {
            ending = false;
            startIdleTimer(ended);
        }).thenNoReply();
    }
}
