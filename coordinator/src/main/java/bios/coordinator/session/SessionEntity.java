package bios.coordinator.session;

import bios.coordinator.Metrics;
import bios.coordinator.session.Session.Decision;
import bios.coordinator.session.SessionEvent.SessionEnded;
import bios.coordinator.session.SessionEvent.SessionOpened;
import bios.persistence.journal.JournalPruning;
import bios.protocol.Fault;
import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import bios.protocol.wire.Message;
import java.time.Duration;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
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

/// The sharded home of one [Session]. It ends when nothing was heard of its client for long: then its runs
/// release its snapshots, and its own journal goes.
public final class SessionEntity
        extends EventSourcedBehaviorWithEnforcedReplies<Message, SessionEvent, Session> {
    private static final Duration UNOPENED_IDLE = Duration.ofSeconds(5);
    private static final String SILENCE = "silence";

    /// What the entity tells itself.
    private sealed interface Internal extends Message {
        record Silent() implements Internal {}

        record Released(boolean all) implements Internal {}
    }

    private final String id;
    private final SessionSettings settings;
    private final SnapshotReleaser releaser;
    private final InstantSource clock;
    private final ActorContext<Message> context;
    private final TimerScheduler<Message> timers;
    private final Optional<ActorRef<ClusterSharding.ShardCommand>> shard;
    private boolean ending;

    private SessionEntity(String id, PersistenceId persistenceId, SessionSettings settings,
            SnapshotReleaser releaser, InstantSource clock, ActorContext<Message> context,
            TimerScheduler<Message> timers, Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        super(persistenceId);
        this.id = id;
        this.settings = settings;
        this.releaser = releaser;
        this.clock = clock;
        this.context = context;
        this.timers = timers;
        this.shard = shard;
    }

    /// The home of session `id`.
    ///
    /// @param shard who lets it go when it is over; empty: it stays
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
        return event instanceof SessionEnded || sequenceNr % settings.snapshotEvery() == 0;
    }

    @Override public SignalHandler<Session> signalHandler() {
        return newSignalHandlerBuilder().onSignal(RecoveryCompleted.instance(),
                session -> listen(session.opened().isPresent() && !session.ended()))
                .onSignal(SnapshotCompleted.class, this::snapshotTaken)
                .onSignal(RecoveryFailed.class, (_, failed) -> refused("recover", failed.getFailure()))
                .onSignal(JournalPersistFailed.class, (_, failed) -> refused("write", failed.failure()))
                .onSignal(JournalPersistRejected.class, (_, failed) -> refused("write", failed.failure()))
                .build();
    }

    private void refused(String action, Throwable failure) {
        Metrics.JOURNAL_FAILURES.labelValues("session", action).inc();
        context.getLog().atWarn().addKeyValue("session", id)
                .log("the journal did not answer, the session begins again: {}", failure.toString());
    }

    private EffectBuilder<SessionEvent, Session> persist(List<SessionEvent> events) {
        long began = System.nanoTime(); // edge: measures, decides nothing
        return Effect().persist(events).thenRun((Session _) -> {
            double seconds = (System.nanoTime() - began) / 1e9; // edge: measures, decides nothing
            Metrics.JOURNAL_SECONDS.labelValues("session").observe(seconds);
        });
    }

    private void snapshotTaken(Session session, SnapshotCompleted taken) {
        if (session.ended()) JournalPruning.all(context.getSystem(), persistenceId().id());
        else JournalPruning.before(context.getSystem(), persistenceId().id(), taken.metadata().sequenceNr());
    }

    private void listen(boolean open) {
        timers.startSingleTimer(SILENCE, new Internal.Silent(), open ? settings.endsAfter() : UNOPENED_IDLE);
    }

    @Override public CommandHandlerWithReply<Message, SessionEvent, Session> commandHandler() {
        return (session, message) -> switch (message) {
            case SessionCommand command -> onCommand(session, command);
            case Internal.Silent _ -> silent(session);
            case Internal.Released(var all) -> released(all);
            default -> throw new IllegalStateException("not for a session: " + message);
        };
    }

    private ReplyEffect<SessionEvent, Session> onCommand(Session session, SessionCommand command) {
        return switch (command) {
            case SessionCommand.Open(var owner, var tags, var metadata, var sdk, var now, var replyTo) ->
                    carryOut(session.open(new SessionOpened(owner, tags, metadata, sdk, now)), replyTo,
                            this::described);
            case SessionCommand.Heartbeat(var owner, var replyTo) ->
                    carryOut(session.look(owner), replyTo, this::described);
            case SessionCommand.AddRun(var owner, var run, var replyTo) ->
                carryOut(session.add(owner, run, settings), replyTo, this::described);
            case SessionCommand.OpenSampler(var owner, var seq, var sampler, var replyTo) ->
                carryOut(session.pin(owner, seq, sampler, settings), replyTo, now -> sampler(now, seq));
            case SessionCommand.FindSampler(var owner, var seq, var replyTo) ->
                carryOut(session.find(owner, seq), replyTo, now -> sampler(now, seq));
            case SessionCommand.Describe(var owner, var replyTo) ->
                    carryOut(session.look(owner), replyTo, this::described);
        };
    }

    private interface Reply {
        SessionReply of(Session session);
    }

    private ReplyEffect<SessionEvent, Session> carryOut(Decision decision,
            ActorRef<SessionReply> replyTo, Reply reply) {
        // While its snapshots are being released the session must not come back to life.
        if (ending) return Effect().reply(replyTo,
                new SessionReply.Refused(Fault.user("not_found", "the session is over; open a new one")));
        return switch (decision) {
            case Decision.Accept(var events) ->
                    (events.isEmpty() ? Effect().none() : persist(events))
                            .thenRun((Session _) -> listen(true)).thenReply(replyTo, reply::of);
            case Decision.Refuse(var why) -> Effect().reply(replyTo, new SessionReply.Refused(why));
        };
    }

    private SessionReply described(Session session) {
        return new SessionReply.Described(id, session.runs(),
                session.samplers().keySet().stream().map(this::samplerId).toList());
    }

    private SessionReply sampler(Session session, long seq) {
        return new SessionReply.SamplerOpened(samplerId(seq), session.samplers().get(seq));
    }

    private String samplerId(long seq) {
        return id + ":sample:" + seq;
    }

    private ReplyEffect<SessionEvent, Session> silent(Session session) {
        if (session.opened().isEmpty() || session.ended()) {
            shard.ifPresent(s -> s.tell(new ClusterSharding.Passivate<>(context.getSelf())));
            return Effect().noReply();
        }
        ending = true;
        String owner = session.opened().get().owner();
        List<CompletableFuture<Boolean>> releases = session.runs().stream()
                .map(run -> release(owner, run)).toList();
        CompletableFuture<Boolean> all =
                CompletableFuture.allOf(releases.toArray(CompletableFuture<?>[]::new))
                .thenApply(_ -> releases.stream().allMatch(CompletableFuture::join));
        context.pipeToSelf(all, (done, failure) -> new Internal.Released(failure == null && done));
        return Effect().noReply();
    }

    private CompletableFuture<Boolean> release(String owner, RunId run) {
        return releaser.release(owner, run, id).toCompletableFuture();
    }

    private ReplyEffect<SessionEvent, Session> released(boolean all) {
        if (!all) {
            context.getLog().atWarn().addKeyValue("session", id)
                    .log("not every run has released its snapshots; trying again");
            timers.startSingleTimer(SILENCE, new Internal.Silent(), settings.retryAfter());
            return Effect().noReply();
        }
        return persist(List.of(new SessionEnded(clock.millis()))).thenRun((Session _) -> {
            ending = false;
            listen(false);
        }).thenNoReply();
    }
}
