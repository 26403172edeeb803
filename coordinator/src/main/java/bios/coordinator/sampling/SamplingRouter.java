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
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.LongSupplier;
import org.apache.pekko.actor.Cancellable;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.actor.typed.receptionist.Receptionist;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Takes sampling requests, hands each to an engine, and keeps results until they are fetched or too old. A
/// request whose engine dies is drawn again elsewhere, one whose coordinator dies is taken over by the
/// coordinator that is asked for it ([AcceptedSamples]); its seed was fixed, so the tokens are the same.
/// All judgement is in [SamplingDesk].
public final class SamplingRouter {
    private static final Logger LOG = LoggerFactory.getLogger(SamplingRouter.class);
    private static final String PREFIX = "sample:";
    private static final Duration TICK = Duration.ofSeconds(1);
    private static final Duration SWEEP = Duration.ofMinutes(5);

    private sealed interface Command {}

    private record Asked(SamplingCommand command) implements Command {}

    private record FleetIs(Fleet fleet) implements Command {}

    private record EngineGone(ActorRef<EngineCommand> engine) implements Command {}

    private record Answered(String task, EngineReply reply) implements Command {}

    private record WaitOver(String task, ActorRef<SamplingReply> replyTo) implements Command {}

    private record Found(SamplingCommand.Retrieve retrieve, Set<ActorRef<SamplingCommand>> routers)
            implements Command {}

    private record Kept(SamplingCommand.Submit submit, Optional<String> failure) implements Command {}

    private record Left(SamplingCommand.Retrieve retrieve, Optional<AcceptedSamples.Accepted> accepted,
            Optional<String> failure) implements Command {}

    private record Tick() implements Command {}

    private record Sweep() implements Command {}

    private record Waiter(SamplingCommand.Retrieve retrieve, Cancellable timeout) {}

    private final ActorContext<Command> context;
    private final String prefix;
    private final LongSupplier nanos;
    private final AcceptedSamples accepted;
    private final Duration requestAge;
    private final SamplingDesk<ActorRef<EngineCommand>> desk;
    private final Map<String, List<Waiter>> waiters = new HashMap<>();
    private final Map<String, ActorRef<EngineReply>> ears = new HashMap<>();
    private final Set<ActorRef<EngineCommand>> watched = new HashSet<>();

    private SamplingRouter(ActorContext<Command> context, String name, SamplingSettings settings,
            AcceptedSamples accepted, LongSupplier nanos) {
        this.context = context;
        this.prefix = PREFIX + name + ":";
        this.nanos = nanos;
        this.accepted = accepted;
        this.desk = new SamplingDesk<>(settings);
        this.requestAge = settings.requestAge();
    }

    /// @param name of this router among all that ever were, letters and digits; part of request ids
    /// @param directory tells which engines there are
    /// @param accepted where accepted requests outlive this process
    /// @param nanos a clock that only goes forward, from an arbitrary beginning: how old results and orders
    ///     are, a wall clock that jumps would tell wrong
    public static Behavior<SamplingCommand> create(String name, SamplingSettings settings,
            ActorRef<ModelDirectory.Command> directory, AcceptedSamples accepted, LongSupplier nanos) {
        Behavior<Command> inner = Behaviors.setup(context -> Behaviors.withTimers(timers -> {
            timers.startTimerWithFixedDelay(new Tick(), TICK);
            timers.startTimerWithFixedDelay(new Sweep(), SWEEP);
            directory.tell(new ModelDirectory.Subscribe(context.messageAdapter(Fleet.class, FleetIs::new)));
            context.getSystem().receptionist().tell(Receptionist.register(SamplingCommand.key(name),
                    context.getSelf().unsafeUpcast()));
            var router = new SamplingRouter(context, name, settings, accepted, nanos);
            return Behaviors.receiveMessage(router::on);
        }));
        return Behaviors.transformMessages(SamplingCommand.class, inner, outer -> outer.matchAny(Asked::new));
    }

    private long now() {
        return nanos.getAsLong() / 1_000_000;
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
                desk.gone(engine, now()).forEach(this::wake);
            }
            case Answered(var task, var reply) -> answered(task, reply);
            case WaitOver(var task, var replyTo) -> waitOver(task, replyTo);
            case Found(var retrieve, var routers) ->
                    routers.stream().findFirst().ifPresentOrElse(router -> router.tell(retrieve),
                            () -> takeOver(retrieve));
            case Kept(var submit, var failure) -> submit.replyTo().tell(failure
                    .<SamplingReply>map(why -> new SamplingReply.Refused(Fault.server("unavailable",
                            "the request cannot be kept: " + why + "; submit it again")))
                    .orElseGet(() -> new SamplingReply.Accepted(prefix + submit.task().id())));
            case Left(var retrieve, var left, var failure) -> left(retrieve, left, failure);
            case Sweep _ -> accepted.forget(requestAge.toMillis()).whenComplete((_, failed) -> {
                if (failed != null) LOG.warn("accepted sampling requests cannot be swept yet: {}",
                        failed.toString());
            });
            case Tick _ -> {
                desk.rested();
                desk.expire(now());
                desk.overdue(now()).forEach(this::send);
            }
        }
        desk.dispatch(now()).forEach(this::send);
        Metrics.SAMPLING_UNFINISHED.set(desk.unfinished());
        return Behaviors.same();
    }

    /// Says yes when the request would survive this process; an engine may have it by then.
    private void submit(SamplingCommand.Submit submit) {
        switch (desk.submit(submit.owner(), submit.task())) {
            case SamplingDesk.Submission.Known _ -> context.pipeToSelf(
                    accepted.keep(prefix + submit.task().id(),
                            new AcceptedSamples.Accepted(submit.owner(), submit.task())),
                    (_, failed) -> new Kept(submit, Optional.ofNullable(failed).map(Throwable::toString)));
            case SamplingDesk.Submission.Full(var fault) ->
                    submit.replyTo().tell(new SamplingReply.Refused(fault));
        }
    }

    private void retrieve(SamplingCommand.Retrieve retrieve) {
        Optional<String> task = task(retrieve.request());
        if (task.isEmpty()) {
            retrieve.replyTo().tell(new SamplingReply.Gone(retrieve.request()));
            return;
        }
        boolean here = retrieve.request().startsWith(prefix)
                || !(desk.latest(task.get()) instanceof SamplingDesk.Standing.Unknown);
        if (here) answer(retrieve, task.get());
        else forward(retrieve);
    }

    /// The task in a request's id: `sample:<router>:<task>`.
    private static Optional<String> task(String request) {
        String[] parts = request.split(":", 3);
        boolean whole = parts.length == 3 && parts[1].matches("[A-Za-z0-9]{1,64}") && !parts[2].isEmpty();
        return whole ? Optional.of(parts[2]) : Optional.empty();
    }

    private void answer(SamplingCommand.Retrieve retrieve, String task) {
        SamplingDesk.Standing standing = desk.standing(retrieve.owner(), task);
        if (standing instanceof SamplingDesk.Standing.Open && retrieve.waitMillis() > 0) {
            Cancellable timeout = context.scheduleOnce(Duration.ofMillis(retrieve.waitMillis()),
                    context.getSelf(), new WaitOver(task, retrieve.replyTo()));
            waiters.computeIfAbsent(task, _ -> new ArrayList<>(1)).add(new Waiter(retrieve, timeout));
        } else {
            retrieve.replyTo().tell(reply(retrieve.request(), standing));
        }
    }

    /// The request was accepted by another coordinator's router, or by one that is no more.
    private void forward(SamplingCommand.Retrieve retrieve) {
        var key = SamplingCommand.key(retrieve.request().split(":", 3)[1]);
        context.ask(Receptionist.Listing.class, context.getSystem().receptionist(), Duration.ofSeconds(3),
                self -> Receptionist.find(key, self), (listing, _) -> new Found(retrieve,
                        listing == null ? Set.of() : listing.getServiceInstances(key)));
    }

    /// The router that accepted the request is gone: what it knew of it was kept, or nobody knows it.
    private void takeOver(SamplingCommand.Retrieve retrieve) {
        context.pipeToSelf(accepted.find(retrieve.request()), (found, failed) -> new Left(retrieve,
                found == null ? Optional.empty() : found,
                Optional.ofNullable(failed).map(Throwable::toString)));
    }

    private void left(SamplingCommand.Retrieve retrieve, Optional<AcceptedSamples.Accepted> left,
            Optional<String> failure) {
        String request = retrieve.request();
        if (failure.isPresent()) {
            retrieve.replyTo().tell(new SamplingReply.Pending(request,
                    "the coordinator that accepted it is gone, and the request cannot be read: "
                    + failure.get()));
        } else if (left.isEmpty()) {
            retrieve.replyTo().tell(new SamplingReply.Gone(request));
        } else if (!left.get().owner().equals(retrieve.owner())) {
            retrieve.replyTo().tell(new SamplingReply.Foreign(request));
        } else if (desk.submit(left.get().owner(), left.get().task())
                instanceof SamplingDesk.Submission.Full(var fault)) {
            retrieve.replyTo().tell(new SamplingReply.Pending(request, fault.message()));
        } else {
            answer(retrieve, left.get().task().id());
        }
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
            case EngineReply.Sampled(_, var result) -> desk.sampled(task, result, now());
            case EngineReply.NotDone(var fault) -> desk.failed(task, fault, now());
            case EngineReply.Description _, EngineReply.Tokenized _, EngineReply.Detokenized _,
                    EngineReply.TokenizerFiles _ -> desk.failed(task, Fault.server("sampling_failed",
                            "the worker gave a wrong kind of answer"), now());
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
            waiter.retrieve().replyTo().tell(reply(waiter.retrieve().request(), desk.latest(task)));
        }
    }

    private void waitOver(String task, ActorRef<SamplingReply> replyTo) {
        List<Waiter> waiting = waiters.getOrDefault(task, List.of());
        Optional<Waiter> over = waiting.stream().filter(w ->
                w.retrieve().replyTo().equals(replyTo)).findFirst();
        if (over.isEmpty()) return;
        waiting.remove(over.get());
        if (waiting.isEmpty()) waiters.remove(task);
        replyTo.tell(reply(over.get().retrieve().request(), desk.latest(task)));
    }
}
