package bios.coordinator.fleet;

import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import java.time.Duration;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.receptionist.Receptionist;

/// Keeps a [Fleet] up to date: learns of engines from the receptionist and asks each what it holds,
/// when it appears and then again and again. The newest fleet is published for readers outside actors,
/// and told to subscribers.
public final class ModelDirectory {
    /// What it is told.
    public sealed interface Command {}

    /// Sends `subscriber` the fleet now and whenever it changes.
    public record Subscribe(ActorRef<Fleet> subscriber) implements Command {}

    private record Listed(Receptionist.Listing listing) implements Command {}

    private record Described(ActorRef<EngineCommand> engine, EngineReply.Description description)
            implements Command {}

    private record Silent(ActorRef<EngineCommand> engine) implements Command {}

    private record AskAgain() implements Command {}

    private record Unsubscribed(ActorRef<Fleet> subscriber) implements Command {}

    private final ActorContext<Command> context;
    private final AtomicReference<Fleet> published;
    private final Duration interval;
    private final Set<ActorRef<EngineCommand>> present = new HashSet<>();
    private final Set<ActorRef<EngineCommand>> asked = new HashSet<>();
    private final Set<ActorRef<Fleet>> subscribers = new HashSet<>();

    private ModelDirectory(ActorContext<Command> context, AtomicReference<Fleet> published,
            Duration interval) {
        this.context = context;
        this.published = published;
        this.interval = interval;
    }

    /// @param published where the newest fleet is put
    /// @param interval how often engines are asked how busy they are
    public static Behavior<Command> create(AtomicReference<Fleet> published, Duration interval) {
        return Behaviors.setup(context -> Behaviors.withTimers(timers -> {
            timers.startTimerWithFixedDelay(new AskAgain(), interval);
            context.getSystem().receptionist().tell(Receptionist.subscribe(EngineCommand.ANY,
                    context.messageAdapter(Receptionist.Listing.class, Listed::new)));
            var directory = new ModelDirectory(context, published, interval);
            return Behaviors.receiveMessage(directory::on);
        }));
    }

    private Behavior<Command> on(Command command) {
        switch (command) {
            case Subscribe(var subscriber) -> {
                if (subscribers.add(subscriber)) context.watchWith(subscriber, new Unsubscribed(subscriber));
                subscriber.tell(published.get());
            }
            case Unsubscribed(var subscriber) -> subscribers.remove(subscriber);
            case Listed(var listing) -> listed(listing.getServiceInstances(EngineCommand.ANY));
            case AskAgain _ -> present.forEach(this::describe);
            case Silent(var engine) -> asked.remove(engine);
            case Described(var engine, var description) -> {
                asked.remove(engine);
                if (present.contains(engine))
                    publish(published.get().described(engine, description.models(),
                            description.queuedSequences()));
            }
        }
        return Behaviors.same();
    }

    private void listed(Set<ActorRef<EngineCommand>> engines) {
        present.clear();
        present.addAll(engines);
        asked.retainAll(engines);
        publish(published.get().retain(engines));
        present.forEach(this::describe);
    }

    private void describe(ActorRef<EngineCommand> engine) {
        if (!asked.add(engine)) return;
        context.ask(EngineReply.class, engine, interval.multipliedBy(5), EngineCommand.Describe::new,
                (reply, _) -> reply instanceof EngineReply.Description description
                        ? new Described(engine, description) : new Silent(engine));
    }

    private void publish(Fleet fleet) {
        if (fleet == published.get()) return;
        fleet.conflicts()
                .forEach(conflict -> context.getLog().error("a base model is not used: {}", conflict));
        published.set(fleet);
        subscribers.forEach(subscriber -> subscriber.tell(fleet));
    }
}
