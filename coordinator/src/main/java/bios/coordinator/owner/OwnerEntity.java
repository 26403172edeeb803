package bios.coordinator.owner;

import bios.coordinator.DamagedEntities;
import bios.coordinator.Metrics;
import bios.coordinator.SnapshotInterval;
import bios.coordinator.owner.OwnerEvent.Recorded;
import bios.persistence.journal.JournalPruning;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.AuditEntry;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import bios.protocol.wire.Message;
import java.util.List;
import java.util.Optional;
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
import org.apache.pekko.persistence.typed.javadsl.EventHandler;
import org.apache.pekko.persistence.typed.javadsl.EventSourcedBehaviorWithEnforcedReplies;
import org.apache.pekko.persistence.typed.javadsl.ReplyEffect;
import org.apache.pekko.persistence.typed.javadsl.SignalHandler;

/// The entity of one [OwnerRecords].
public final class OwnerEntity
        extends EventSourcedBehaviorWithEnforcedReplies<Message, OwnerEvent, OwnerRecords> {
    private static final int SNAPSHOT_EVERY = 200;

    /// The account was not used for a while.
    private record Idle() implements Message {}

    private final String account;
    private final OwnerSettings settings;
    private final ActorContext<Message> context;
    private final TimerScheduler<Message> timers;
    private final Optional<ActorRef<ClusterSharding.ShardCommand>> shard;

    private OwnerEntity(String account, PersistenceId persistenceId, OwnerSettings settings,
            ActorContext<Message> context, TimerScheduler<Message> timers,
            Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        super(persistenceId, DamagedEntities.get(context.getSystem()).supervision(persistenceId.id()));
        this.account = account;
        this.settings = settings;
        this.context = context;
        this.timers = timers;
        this.shard = shard;
    }

    /// Creates the entity of an account.
    ///
    /// @param shard passivates the entity when it is idle; empty: it is never passivated
    public static Behavior<OwnerCommand> create(String account, PersistenceId persistenceId,
            OwnerSettings settings, Optional<ActorRef<ClusterSharding.ShardCommand>> shard) {
        Behavior<Message> behavior = Behaviors.setup(context -> Behaviors.withTimers(timers ->
                new OwnerEntity(account, persistenceId, settings, context, timers, shard)));
        return behavior.narrow();
    }

    @Override public OwnerRecords emptyState() {
        return OwnerRecords.NONE;
    }

    @Override public EventHandler<OwnerRecords, OwnerEvent> eventHandler() {
        return (owner, event) -> owner.apply(event, settings.auditEntries());
    }

    @Override public boolean shouldSnapshot(OwnerRecords owner, OwnerEvent event, long sequenceNr) {
        return SnapshotInterval.isOver(sequenceNr, SNAPSHOT_EVERY,
                owner.audit().size() + owner.totals().size() + owner.hours().size());
    }

    @Override public SignalHandler<OwnerRecords> signalHandler() {
        return newSignalHandlerBuilder().onSignal(RecoveryCompleted.instance(), _ -> {
            DamagedEntities.get(context.getSystem()).recovered(persistenceId().id());
            startIdleTimer();
        }).onSignal(SnapshotCompleted.class, (_, taken) -> JournalPruning.before(context.getSystem(),
                persistenceId().id(), taken.metadata().sequenceNr()))
                .onSignal(RecoveryFailed.class, (_, failed) -> onRecoveryFailed(failed.getFailure()))
                .onSignal(JournalPersistFailed.class, (_, failed) -> onJournalFailed("write",
                        failed.failure()))
                .onSignal(JournalPersistRejected.class, (_, failed) -> onJournalFailed("write",
                        failed.failure())).build();
    }

    private void onRecoveryFailed(Throwable failure) {
        boolean damaged = DamagedEntities.get(context.getSystem()).recoveryFailed(persistenceId().id(),
                "the records of account " + account, failure, what -> context.getLog().warn("{}", what));
        if (damaged) Metrics.JOURNAL_FAILURES.labelValues("owner", "recover").inc();
        else onJournalFailed("recover", failure);
    }

    private void onJournalFailed(String action, Throwable failure) {
        Metrics.JOURNAL_FAILURES.labelValues("owner", action).inc();
        context.getLog().atWarn().addKeyValue("account", account)
                .log("journal failed, the entity restarts: {}", failure.toString());
    }

    private void startIdleTimer() {
        timers.startSingleTimer("idle", new Idle(), settings.idleAfter());
    }

    /// Answers for an account whose records cannot be read from the journal.
    static boolean refuse(OwnerCommand command, String what) {
        (switch (command) {
            case OwnerCommand.CountSampling c -> c.replyTo();
            case OwnerCommand.Record c -> c.replyTo();
            case OwnerCommand.GetAudit c -> c.replyTo();
            case OwnerCommand.GetUsage c -> c.replyTo();
        }).tell(new OwnerReply.Unavailable(what));
        return true;
    }

    @Override public CommandHandlerWithReply<Message, OwnerEvent, OwnerRecords> commandHandler() {
        return (owner, message) -> switch (message) {
            case OwnerCommand command -> {
                startIdleTimer();
                yield onCommand(owner, command);
            }
            case Idle _ -> {
                shard.ifPresent(s -> s.tell(new ClusterSharding.Passivate<>(context.getSelf())));
                yield Effect().noReply();
            }
            default -> throw new IllegalStateException("unexpected message: " + message);
        };
    }

    private ReplyEffect<OwnerEvent, OwnerRecords> onCommand(OwnerRecords owner, OwnerCommand command) {
        return switch (command) {
            case OwnerCommand.CountSampling(var writer, var number, var uses, var now, var replyTo) ->
                persist(owner.count(writer, number, uses, now), replyTo);
            case OwnerCommand.Record(var entry, var key, var replyTo) ->
                persist(owner.record(new Recorded(entry, key)), replyTo);
            case OwnerCommand.GetAudit(var skip, var limit, var replyTo) -> {
                List<AuditEntry> newest = owner.audit().reversed().stream().skip(skip).limit(limit)
                        .map(Recorded::entry).toList();
                yield Effect().reply(replyTo, new OwnerReply.Audit(newest, owner.audit().size()));
            }
            case OwnerCommand.GetUsage(var replyTo) ->
                Effect().reply(replyTo, new OwnerReply.Sampled(owner.totals(), owner.hours()));
        };
    }

    private ReplyEffect<OwnerEvent, OwnerRecords> persist(Optional<? extends OwnerEvent> event,
            ActorRef<OwnerReply> replyTo) {
        var done = new OwnerReply.Done();
        if (event.isEmpty()) return Effect().reply(replyTo, done);
        List<OwnerEvent> events = List.of(event.get());
        return Effect().persist(events).thenReply(replyTo, _ -> done);
    }
}
