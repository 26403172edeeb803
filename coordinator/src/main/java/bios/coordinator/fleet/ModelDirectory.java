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

/// Keeps the [EngineDirectory] up to date: finds engines through the receptionist and asks each for a
/// description when it appears and then periodically. Publishes the current directory to subscribers and to
/// readers outside actors.
public final class ModelDirectory {
    /// The messages of the directory.
    public sealed interface Command {}

    /// Sends the directory to `subscriber` now and after each change.
    public record Subscribe(ActorRef<EngineDirectory> subscriber) implements Command {}

    private record Listed(Receptionist.Listing listing) implements Command {}

    private record Described(ActorRef<EngineCommand> engine, EngineReply.Description description)
            implements Command {}

    private record DescribeTimedOut(ActorRef<EngineCommand> engine) implements Command {}

    private record DescribeAll() implements Command {}

    private record Unsubscribed(ActorRef<EngineDirectory> subscriber) implements Command {}

    private final ActorContext<Command> context;
    private final AtomicReference<EngineDirectory> published;
    private final Duration interval;
    private final Set<ActorRef<EngineCommand>> present = new HashSet<>();
    private final Set<ActorRef<EngineCommand>> asked = new HashSet<>();
    private final Set<ActorRef<EngineDirectory>> subscribers = new HashSet<>();

    private ModelDirectory(ActorContext<Command> context, AtomicReference<EngineDirectory> published,
            Duration interval) {
        this.context = context;
        this.published = published;
        this.interval = interval;
    }

    /// @param published holds the current directory
    /// @param interval interval between descriptions of an engine
    public static Behavior<Command> create(AtomicReference<EngineDirectory> published, Duration interval) {
        return Behaviors.setup(context -> Behaviors.withTimers(timers -> {
            timers.startTimerWithFixedDelay(new DescribeAll(), interval);
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
            case Listed(var listing) -> onListing(listing.getServiceInstances(EngineCommand.ANY));
            case DescribeAll _ -> present.forEach(this::describe);
            case DescribeTimedOut(var engine) -> asked.remove(engine);
            case Described(var engine, var description) -> {
                asked.remove(engine);
                if (present.contains(engine))
                    publish(published.get().withEngine(engine, description));
            }
        }
        return Behaviors.same();
    }

    private void onListing(Set<ActorRef<EngineCommand>> engines) {
        present.clear();
        present.addAll(engines);
        asked.retainAll(engines);
        publish(published.get().withOnlyEngines(engines));
        present.forEach(this::describe);
    }

    private void describe(ActorRef<EngineCommand> engine) {
        if (!asked.add(engine)) return;
        context.ask(EngineReply.class, engine, interval.multipliedBy(5), EngineCommand.Describe::new,
                (reply, _) -> reply instanceof EngineReply.Description description
                        ? new Described(engine, description) : new DescribeTimedOut(engine));
    }

    private void publish(EngineDirectory directory) {
        if (directory == published.get()) return;
        directory.conflictMessages()
                .forEach(conflict -> context.getLog().error("base model ignored: {}", conflict));
        published.set(directory);
        subscribers.forEach(subscriber -> subscriber.tell(directory));
    }
}
