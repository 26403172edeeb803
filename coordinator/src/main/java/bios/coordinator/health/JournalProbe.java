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

/// Asks the journal again and again, whichever plugin it is, for the events of an entity that has none, and
/// publishes whether it answered. It reads only; writes that fail show in `bios_journal_failures_total`.
final class JournalProbe {
    private sealed interface Message {}

    private record Ask() implements Message {}

    private record Answered(long number, Optional<String> problem) implements Message {}

    private record Silent(long number) implements Message {}

    private final ActorContext<Message> context;
    private final TimerScheduler<Message> timers;
    private final AtomicReference<Optional<String>> published;
    private final Duration interval;
    private final Duration timeout;
    private Optional<ActorRef<Ask>> asking = Optional.empty();
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

    /// Begins to ask; gives where the newest answer is.
    static Supplier<Optional<String>> start(ActorSystem<?> system) {
        var published = new AtomicReference<>(Optional.of("the journal has not answered yet"));
        Behavior<Message> probe = Behaviors.setup(context -> Behaviors.withTimers(timers -> {
            var self = new JournalProbe(context, timers, published);
            self.ask();
            return Behaviors.receiveMessage(self::on);
        }));
        system.systemActorOf(probe, "bios-journal-probe-" + system.startTime() + "-"
                + Integer.toHexString(System.identityHashCode(published)), Props.empty());
        return published::get;
    }

    private Behavior<Message> on(Message message) {
        switch (message) {
            case Ask _ -> ask();
            case Answered(var of, var problem) -> {
                if (of == number) answered(problem);
            }
            case Silent(var of) -> {
                if (of == number)
                    answered(Optional.of("the journal did not answer within " + timeout.toMillis() + " ms"));
            }
        }
        return Behaviors.same();
    }

    private void ask() {
        long own = ++number;
        ActorRef<Message> self = context.getSelf();
        var id = PersistenceId.ofUniqueId("bios-probe-" + NodeName.of(context.getSystem()));
        Behavior<Ask> question = Behaviors.setup(_ ->
                new Question(id, problem -> self.tell(new Answered(own, problem))));
        // The failure is in the answer: one line when it changes, no trace each time.
        asking = Optional.of(context.spawnAnonymous(Behaviors.supervise(question)
                .onFailure(SupervisorStrategy.stop().withLoggingEnabled(false))));
        timers.startSingleTimer("silent", new Silent(own), timeout);
    }

    private void answered(Optional<String> problem) {
        if (!problem.equals(published.get())) {
            if (problem.isPresent()) context.getLog().warn("not ready: {}", problem.get());
            else context.getLog().debug("the journal answers");
        }
        published.set(problem);
        number++;
        timers.cancel("silent");
        asking.ifPresent(context::stop);
        asking = Optional.empty();
        timers.startSingleTimer("ask", new Ask(), interval);
    }

    private interface Answer {
        void is(Optional<String> problem);
    }

    private static final class Question extends EventSourcedBehavior<Ask, String, String> {
        private final Answer answer;

        Question(PersistenceId id, Answer answer) {
            super(id);
            this.answer = answer;
        }

        @Override public String emptyState() {
            return "";
        }

        @Override public CommandHandler<Ask, String, String> commandHandler() {
            return (_, _) -> Effect().none();
        }

        @Override public EventHandler<String, String> eventHandler() {
            return (state, _) -> state;
        }

        @Override public SignalHandler<String> signalHandler() {
            return newSignalHandlerBuilder()
                    .onSignal(RecoveryCompleted.instance(), _ -> answer.is(Optional.empty()))
                    .onSignal(RecoveryFailed.class, (_, failed) -> answer.is(
                            Optional.of("the journal fails: " + failed.getFailure())))
                    .build();
        }
    }
}
