package bios.coordinator.health;

import bios.coordinator.NodeName;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.Props;
import org.apache.pekko.actor.typed.SupervisorStrategy;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.javadsl.TimerScheduler;
import org.apache.pekko.persistence.typed.PersistenceId;
import org.apache.pekko.persistence.typed.RecoveryCompleted;
import org.apache.pekko.persistence.typed.RecoveryFailed;
import org.apache.pekko.persistence.typed.javadsl.CommandHandler;
import org.apache.pekko.persistence.typed.javadsl.EventHandler;
import org.apache.pekko.persistence.typed.javadsl.EventSourcedBehavior;
import org.apache.pekko.persistence.typed.javadsl.SignalHandler;

/// Reads the journal periodically: it starts a persistent entity without events and publishes whether its
/// recovery succeeded. Works with every journal plugin. Failed writes are counted by
/// `bios_journal_failures_total`.
final class JournalProbe {
    private sealed interface Message {}

    private record StartProbe() implements Message {}

    private record ProbeReplied(long number, Optional<String> problem) implements Message {}

    private record ProbeTimedOut(long number) implements Message {}

    private final ActorContext<Message> context;
    private final TimerScheduler<Message> timers;
    private final AtomicReference<Optional<String>> published;
    private final Duration interval;
    private final Duration timeout;
    private Optional<ActorRef<StartProbe>> entity = Optional.empty();
    private long number;

    private JournalProbe(ActorContext<Message> context, TimerScheduler<Message> timers,
            AtomicReference<Optional<String>> published) {
        var config = context.getSystem().settings().config().getConfig("bios.health");
        this.context = context;
        this.timers = timers;
        this.published = published;
        this.interval = config.getDuration("journal-interval");
        this.timeout = config.getDuration("journal-timeout");
    }

    /// Starts the probe; returns a supplier of the latest result.
    static Supplier<Optional<String>> start(ActorSystem<?> system) {
        var published = new AtomicReference<>(Optional.of("the journal has not answered yet"));
        Behavior<Message> probe = Behaviors.setup(context -> Behaviors.withTimers(timers -> {
            var self = new JournalProbe(context, timers, published);
            self.probe();
            return Behaviors.receiveMessage(self::on);
        }));
        system.systemActorOf(probe, "bios-journal-probe-" + system.startTime() + "-"
                + Integer.toHexString(System.identityHashCode(published)), Props.empty());
        return published::get;
    }

    private Behavior<Message> on(Message message) {
        switch (message) {
            case StartProbe _ -> probe();
            case ProbeReplied(var of, var problem) -> {
                if (of == number) completed(problem);
            }
            case ProbeTimedOut(var of) -> {
                if (of == number)
                    completed(Optional.of("the journal did not answer within " + timeout.toMillis() + " ms"));
            }
        }
        return Behaviors.same();
    }

    private void probe() {
        long current = ++number;
        ActorRef<Message> self = context.getSelf();
        var id = PersistenceId.ofUniqueId("bios-probe-" + NodeName.of(context.getSystem()));
        Behavior<StartProbe> question = Behaviors.setup(_ ->
                new ProbeEntity(id, problem -> self.tell(new ProbeReplied(current, problem))));
        // The result contains the failure, which is logged once when it changes, without a stack trace.
        entity = Optional.of(context.spawnAnonymous(Behaviors.supervise(question)
                .onFailure(SupervisorStrategy.stop().withLoggingEnabled(false))));
        timers.startSingleTimer("timeout", new ProbeTimedOut(current), timeout);
    }

    private void completed(Optional<String> problem) {
        if (!problem.equals(published.get())) {
            if (problem.isPresent()) context.getLog().warn("not ready: {}", problem.get());
            else context.getLog().debug("the journal answers");
        }
        published.set(problem);
        number++;
        timers.cancel("timeout");
        entity.ifPresent(context::stop);
        entity = Optional.empty();
        timers.startSingleTimer("probe", new StartProbe(), interval);
    }

    private interface Listener {
        void onResult(Optional<String> problem);
    }

    private static final class ProbeEntity extends EventSourcedBehavior<StartProbe, String, String> {
        private final Listener listener;

        ProbeEntity(PersistenceId id, Listener listener) {
            super(id);
            this.listener = listener;
        }

        @Override public String emptyState() {
            return "";
        }

        @Override public CommandHandler<StartProbe, String, String> commandHandler() {
            return (_, _) -> Effect().none();
        }

        @Override public EventHandler<String, String> eventHandler() {
            return (state, _) -> state;
        }

        @Override public SignalHandler<String> signalHandler() {
            return newSignalHandlerBuilder()
                    .onSignal(RecoveryCompleted.instance(), _ -> listener.onResult(Optional.empty()))
                    .onSignal(RecoveryFailed.class, (_, failed) -> listener.onResult(
                            Optional.of("the journal failed: " + failed.getFailure())))
                    .build();
        }
    }
}
