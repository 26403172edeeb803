package bios.coordinator.sampling;

import bios.coordinator.Metrics;
import bios.coordinator.fleet.Fleet;
import bios.coordinator.fleet.ModelDirectory;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.pekko.actor.Cancellable;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.receptionist.Receptionist;

/// Takes sampling requests, hands each to an engine, and keeps results until they are fetched or too old. A
/// request whose engine dies is drawn again elsewhere; its seed was fixed, so the tokens are the same. All
/// judgement is in [SamplingDesk].
public final class SamplingRouter {
    private static final String PREFIX = "sample:";
    private static final Duration TICK = Duration.ofSeconds(1);

    private sealed interface Command {}

    private record Asked(SamplingCommand command) implements Command {}

    private record FleetIs(Fleet fleet) implements Command {}

    private record EngineGone(ActorRef<EngineCommand> engine) implements Command {}

    private record Answered(String task, EngineReply reply) implements Command {}

    private record WaitOver(String task, ActorRef<SamplingReply> replyTo) implements Command {}

    private record Found(SamplingCommand.Retrieve retrieve, Set<ActorRef<SamplingCommand>> routers)
            implements Command {}

    private record Tick() implements Command {}

    private record Waiter(ActorRef<SamplingReply> replyTo, Cancellable timeout) {}

    private final ActorContext<Command> context;
    private final String prefix;
    private final InstantSource clock;
    private final SamplingDesk<ActorRef<EngineCommand>> desk;
    private final Map<String, List<Waiter>> waiters = new HashMap<>();
    private final Map<String, ActorRef<EngineReply>> ears = new HashMap<>();
    private final Set<ActorRef<EngineCommand>> watched = new HashSet<>();

    private SamplingRouter(ActorContext<Command> context, String name, SamplingSettings settings,
            InstantSource clock) {
        this.context = context;
        this.prefix = PREFIX + name + ":";
        this.clock = clock;
        this.desk = new SamplingDesk<>(settings);
    }

    /// @param name of this router among all that ever were, letters and digits; part of request ids
    /// @param directory tells which engines there are
    public static Behavior<SamplingCommand> create(String name, SamplingSettings settings,
            ActorRef<ModelDirectory.Command> directory, InstantSource clock) {
        Behavior<Command> inner = Behaviors.setup(context -> Behaviors.withTimers(timers -> {
            timers.startTimerWithFixedDelay(new Tick(), TICK);
            directory.tell(new ModelDirectory.Subscribe(context.messageAdapter(Fleet.class, FleetIs::new)));
            context.getSystem().receptionist().tell(Receptionist.register(SamplingCommand.key(name),
                    context.getSelf().unsafeUpcast()));
            var router = new SamplingRouter(context, name, settings, clock);
            return Behaviors.receiveMessage(router::on);
        }));
        return Behaviors.transformMessages(SamplingCommand.class, inner, outer -> outer.matchAny(Asked::new));
    }

    /// Whether `request` is the id of a sampling request.
    public static boolean isRequest(String request) {
        return request.startsWith(PREFIX);
    }

    private Behavior<Command> on(Command command) {
        switch (command) {
            case Asked(SamplingCommand.Submit submit) -> submit(submit);
            case Asked(SamplingCommand.Retrieve retrieve) -> retrieve(retrieve);
            case FleetIs(var fleet) -> fleet(fleet);
            case EngineGone(var engine) -> {
                watched.remove(engine);
                desk.gone(engine, clock.millis()).forEach(this::wake);
            }
            case Answered(var task, var reply) -> answered(task, reply);
            case WaitOver(var task, var replyTo) -> waitOver(task, replyTo);
            case Found(var retrieve, var routers) ->
                    routers.stream().findFirst().ifPresentOrElse(router -> router.tell(retrieve),
                            () -> retrieve.replyTo().tell(new SamplingReply.Gone(retrieve.request())));
            case Tick _ -> {
                desk.rested();
                desk.expire(clock.millis());
                desk.overdue(clock.millis()).forEach(this::send);
            }
        }
        desk.dispatch(clock.millis()).forEach(this::send);
        Metrics.SAMPLING_UNFINISHED.set(desk.unfinished());
        return Behaviors.same();
    }

    private void submit(SamplingCommand.Submit submit) {
        submit.replyTo().tell(switch (desk.submit(submit.owner(), submit.task())) {
            case SamplingDesk.Submission.Known _ -> new SamplingReply.Accepted(prefix + submit.task().id());
            case SamplingDesk.Submission.Full(var fault) -> new SamplingReply.Refused(fault);
        });
    }

    private void retrieve(SamplingCommand.Retrieve retrieve) {
        String request = retrieve.request();
        if (!request.startsWith(prefix)) {
            forward(retrieve);
            return;
        }
        String task = request.substring(prefix.length());
        SamplingDesk.Standing standing = desk.standing(retrieve.owner(), task);
        if (standing instanceof SamplingDesk.Standing.Open && retrieve.waitMillis() > 0) {
            Cancellable timeout = context.scheduleOnce(Duration.ofMillis(retrieve.waitMillis()),
                    context.getSelf(), new WaitOver(task, retrieve.replyTo()));
            waiters.computeIfAbsent(task, _ -> new ArrayList<>(1))
                    .add(new Waiter(retrieve.replyTo(), timeout));
        } else {
            retrieve.replyTo().tell(reply(request, standing));
        }
    }

    /// The request was accepted by another coordinator's router, or by one that is no more.
    private void forward(SamplingCommand.Retrieve retrieve) {
        String[] parts = retrieve.request().split(":", 3);
        if (parts.length < 3 || !parts[1].matches("[A-Za-z0-9]{1,64}")
                || prefix.equals(PREFIX + parts[1] + ":")) {
            retrieve.replyTo().tell(new SamplingReply.Gone(retrieve.request()));
            return;
        }
        var key = SamplingCommand.key(parts[1]);
        context.ask(Receptionist.Listing.class, context.getSystem().receptionist(), Duration.ofSeconds(3),
                self -> Receptionist.find(key, self), (listing, _) -> new Found(retrieve,
                        listing == null ? Set.of() : listing.getServiceInstances(key)));
    }

    private static SamplingReply reply(String request, SamplingDesk.Standing standing) {
        return switch (standing) {
            case SamplingDesk.Standing.Open(var state) -> new SamplingReply.Pending(request, state);
            case SamplingDesk.Standing.Done(var result) -> new SamplingReply.Completed(request, result);
            case SamplingDesk.Standing.Broken(var fault) -> new SamplingReply.Failed(request, fault);
            case SamplingDesk.Standing.Foreign _ -> new SamplingReply.Foreign(request);
            case SamplingDesk.Standing.Unknown _ -> new SamplingReply.Gone(request);
        };
    }

    private void fleet(Fleet fleet) {
        desk.seen(fleet.engines().stream().filter(e -> !e.models().isEmpty())
                .map(e -> new SamplingDesk.Seen<>(e.ref(), e.models(), e.queuedSequences())).toList());
        fleet.engines().forEach(e -> {
            if (watched.add(e.ref())) context.watchWith(e.ref(), new EngineGone(e.ref()));
        });
    }

    private void send(SamplingDesk.Send<ActorRef<EngineCommand>> send) {
        String task = send.task().id();
        ActorRef<Command> self = context.getSelf();
        ActorRef<EngineReply> ear = ears.computeIfAbsent(task,
                _ -> context.spawnAnonymous(Behaviors.receiveMessage(reply -> {
                    self.tell(new Answered(task, reply));
                    return Behaviors.same();
                })));
        send.engine().tell(new EngineCommand.Sample(send.task(), ear));
    }

    private void answered(String task, EngineReply reply) {
        boolean ended = switch (reply) {
            case EngineReply.Sampled(_, var result) -> desk.sampled(task, result, clock.millis());
            case EngineReply.NotDone(var fault) -> desk.failed(task, fault, clock.millis());
            case EngineReply.Description _, EngineReply.Tokenized _, EngineReply.Detokenized _,
                    EngineReply.TokenizerFiles _ -> desk.failed(task, Fault.server("sampling_failed",
                            "the worker gave a wrong kind of answer"), clock.millis());
        };
        if (ended) wake(task);
    }

    private void wake(String task) {
        ActorRef<EngineReply> ear = ears.remove(task);
        if (ear != null) context.stop(ear);
        List<Waiter> woken = waiters.remove(task);
        if (woken == null) return;
        for (Waiter waiter : woken) {
            waiter.timeout().cancel();
            waiter.replyTo().tell(reply(prefix + task, desk.latest(task)));
        }
    }

    private void waitOver(String task, ActorRef<SamplingReply> replyTo) {
        List<Waiter> waiting = waiters.get(task);
        if (waiting == null || !waiting.removeIf(w -> w.replyTo().equals(replyTo))) return;
        if (waiting.isEmpty()) waiters.remove(task);
        replyTo.tell(reply(prefix + task, desk.latest(task)));
    }
}
