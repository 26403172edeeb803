package bios.coordinator.sampling;

import bios.coordinator.Metrics;
import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.fleet.ModelDirectory;
import bios.coordinator.run.Checkpoints;
import bios.coordinator.run.RunSettings;
import bios.coordinator.run.WeightKeeper;
import bios.protocol.Fault;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.run.RunCommand.Reason;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.sampling.DrawnTokens;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import bios.protocol.wire.LargeReply;
import bios.protocol.wire.Outbox;
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

/// Accepts sampling requests, sends each to an engine and keeps results until they expire. If the engine is
/// lost, the request runs on another one. If the coordinator is lost, the coordinator that receives the next
/// poll loads the request from the [SampleRequestStore] and runs it. The seed is fixed at acceptance, so the
/// tokens are the same. All decisions are made by [SampleDispatcher].
public final class SamplingRouter {
    private static final Logger LOG = LoggerFactory.getLogger(SamplingRouter.class);
    private static final String PREFIX = "sample:";
    private static final Duration TICK = Duration.ofSeconds(1);
    private static final Duration DELETE_EXPIRED_EVERY = Duration.ofMinutes(5);

    private sealed interface Command {}

    private record FromGateway(SamplingCommand command) implements Command {}

    private record EnginesChanged(EngineDirectory directory) implements Command {}

    private record EngineTerminated(ActorRef<EngineCommand> engine) implements Command {}

    private record FromEngine(String task, EngineReply reply) implements Command {}

    /// The reply of an engine is larger than a frame and has to be fetched.
    private record LargeFromEngine(String task, LargeReply reply) implements Command {}

    /// A follower has waited long enough.
    private record FollowTimeout(String task, ActorRef<SamplingReply> replyTo) implements Command {}

    private record PollTimeout(String task, ActorRef<SamplingReply> replyTo) implements Command {}

    private record RouterFound(SamplingCommand.Retrieve retrieve, Set<ActorRef<SamplingCommand>> routers)
            implements Command {}

    private record RequestStored(SamplingCommand.Submit submit, Optional<String> failure)
            implements Command {}

    private record RequestLoaded(
            SamplingCommand.Retrieve retrieve, Optional<SampleRequestStore.StoredRequest> loaded,
            Optional<String> failure) implements Command {}

    /// The run of a request's weights has said whether it keeps them, after an engine did not find them.
    private record WeightsChecked(String task, Fault fault, Optional<String> expired) implements Command {}

    /// Time to say that the weights of unfinished requests are in use.
    private record KeepWeights() implements Command {}

    private record Tick() implements Command {}

    private record DeleteExpired() implements Command {}

    private record Waiter(SamplingCommand.Retrieve retrieve, Cancellable timeout) {}

    /// Waits for tokens of a request that is not finished.
    private record Follower(SamplingCommand.Follow question, Cancellable timeout) {}

    private final ActorContext<Command> context;
    private final String prefix;
    private final LongSupplier nanos;
    private final SampleRequestStore store;
    private final WeightKeeper keeper;
    private final SampleMeter meter;
    private final Duration requestAge;
    private final SampleDispatcher<ActorRef<EngineCommand>> dispatcher;
    private final Map<String, List<Waiter>> waiters = new HashMap<>();
    private final Map<String, Follower> followers = new HashMap<>();
    private final Map<String, ActorRef<EngineReply>> replyAdapters = new HashMap<>();
    /// Tokens of unfinished requests that were handed out to their followers.
    private final Map<String, Long> handedOut = new HashMap<>();
    /// The ids of requests that other routers accepted, by task.
    private final Map<String, String> adopted = new HashMap<>();
    private final Set<ActorRef<EngineCommand>> watched = new HashSet<>();
    /// Engines that are lost and that the newest directory still has.
    private final Set<ActorRef<EngineCommand>> lost = new HashSet<>();

    private SamplingRouter(ActorContext<Command> context, String name, SamplingSettings settings,
            SampleRequestStore store, WeightKeeper keeper, SampleMeter meter, LongSupplier nanos) {
        this.context = context;
        this.prefix = PREFIX + name + ":";
        this.nanos = nanos;
        this.store = store;
        this.keeper = keeper;
        this.meter = meter;
        this.dispatcher = new SampleDispatcher<>(settings);
        this.requestAge = settings.requestAge();
    }

    /// @param name unique name of this router, letters and digits; part of request ids
    /// @param modelDirectory publishes the [EngineDirectory]
    /// @param store keeps accepted requests beyond the life of this process
    /// @param keeper tells runs that their weights are in use
    /// @param nanos monotonic clock, for the age of results and assignments
    public static Behavior<SamplingCommand> create(String name, SamplingSettings settings,
            ActorRef<ModelDirectory.Command> modelDirectory, SampleRequestStore store, WeightKeeper keeper,
            LongSupplier nanos) {
        return create(name, settings, modelDirectory, store, keeper, SampleMeter.NONE, nanos);
    }

    /// As above, with a meter of the finished requests.
    public static Behavior<SamplingCommand> create(String name, SamplingSettings settings,
            ActorRef<ModelDirectory.Command> modelDirectory, SampleRequestStore store, WeightKeeper keeper,
            SampleMeter meter, LongSupplier nanos) {
        Behavior<Command> inner = Behaviors.setup(context -> Behaviors.withTimers(timers -> {
            timers.startTimerWithFixedDelay(new Tick(), TICK);
            timers.startTimerWithFixedDelay(new KeepWeights(), RunSettings.from(
                    context.getSystem().settings().config()).leaseRenewal());
            timers.startTimerWithFixedDelay(new DeleteExpired(), DELETE_EXPIRED_EVERY);
            modelDirectory.tell(new ModelDirectory.Subscribe(
                    context.messageAdapter(EngineDirectory.class, EnginesChanged::new)));
            context.getSystem().receptionist().tell(Receptionist.register(SamplingCommand.key(name),
                    context.getSelf().unsafeUpcast()));
            var router = new SamplingRouter(context, name, settings, store, keeper, meter, nanos);
            return Behaviors.receiveMessage(router::on);
        }));
        return Behaviors.transformMessages(SamplingCommand.class, inner, outer ->
                outer.matchAny(FromGateway::new));
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
            case FromGateway(SamplingCommand.Submit submit) -> submit(submit);
            case FromGateway(SamplingCommand.Retrieve retrieve) -> retrieve(retrieve);
            case FromGateway(SamplingCommand.Follow follow) -> follow(follow);
            case FromGateway(SamplingCommand.Cancel(var owner, var request)) ->
                    task(request).ifPresent(task -> cancel(owner, task));
            case FollowTimeout(var task, var replyTo) -> followTimeout(task, replyTo);
            case EnginesChanged(var directory) -> updateEngines(directory);
            case EngineTerminated(var engine) -> {
                watched.remove(engine);
                lost.add(engine);
                dispatcher.handleEngineLoss(engine, now());
            }
            case FromEngine(var task, var reply) -> engineReplied(task, reply);
            case LargeFromEngine(var task, var large) -> context.pipeToSelf(
                    Outbox.fetch(large, context.getSystem()), (reply, failed) -> new FromEngine(task,
                            reply instanceof EngineReply whole ? whole : new EngineReply.RequestFailed(
                                    Fault.server("unavailable", "its result cannot be fetched from the"
                                            + " worker: " + failed))));
            case PollTimeout(var task, var replyTo) -> pollTimeout(task, replyTo);
            case RouterFound(var retrieve, var routers) ->
                    routers.stream().findFirst().ifPresentOrElse(router -> router.tell(retrieve),
                            () -> loadRequest(retrieve));
            case RequestStored(var submit, var failure) -> submit.replyTo().tell(failure
                    .<SamplingReply>map(why -> new SamplingReply.Refused(Fault.server("unavailable",
                            "the request cannot be stored: " + why + "; submit it again")))
                    .orElseGet(() -> new SamplingReply.Accepted(prefix + submit.task().id())));
            case RequestLoaded(var retrieve, var loaded, var failure) ->
                    requestLoaded(retrieve, loaded, failure);
            case WeightsChecked(var task, var fault, var expired) -> {
                Fault told = expired.map(why -> Fault.user(Checkpoints.SNAPSHOT_EXPIRED, why)).orElse(fault);
                if (dispatcher.handleFailure(task, told, now())) replyToWaiters(task);
            }
            case KeepWeights _ -> dispatcher.weightsInUse().forEach(use ->
                    keeper.keepWeights(use.owner(), use.adapter().blob().id(), false));
            case DeleteExpired _ -> store.deleteOlderThan(requestAge.toMillis()).whenComplete((_, failed) -> {
                if (failed != null) LOG.warn("expired sampling requests cannot be deleted: {}",
                        failed.toString());
            });
            case Tick _ -> {
                dispatcher.requeueDeferred(now());
                dispatcher.expire(now());
                removeExpired();
                dispatcher.resendOverdue(now()).forEach(this::send);
            }
        }
        dispatcher.dispatch(now()).forEach(this::send);
        Metrics.SAMPLING_REQUESTS_UNFINISHED.set(dispatcher.unfinished());
        return Behaviors.same();
    }

    /// Replies when the request is durable; an engine may work on it before.
    private void submit(SamplingCommand.Submit submit) {
        switch (dispatcher.submit(submit.owner(), submit.task())) {
            case SampleDispatcher.Submission.Accepted _ -> context.pipeToSelf(
                    store.put(prefix + submit.task().id(),
                            new SampleRequestStore.StoredRequest(submit.owner(), submit.task())),
                    (_, failed) -> new RequestStored(submit, Optional.ofNullable(failed)
                    .map(Throwable::toString)));
            case SampleDispatcher.Submission.QueueFull(var fault) ->
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
                || !(dispatcher.status(task.get()) instanceof SampleDispatcher.Status.Unknown);
        if (here) answer(retrieve, task.get());
        else forward(retrieve);
    }

    /// The task id in a request id: `sample:<router>:<task>`.
    private static Optional<String> task(String request) {
        String[] parts = request.split(":", 3);
        boolean valid = parts.length == 3 && parts[1].matches("[A-Za-z0-9]{1,64}") && !parts[2].isEmpty();
        return valid ? Optional.of(parts[2]) : Optional.empty();
    }

    private void answer(SamplingCommand.Retrieve retrieve, String task) {
        SampleDispatcher.Status status = dispatcher.status(retrieve.owner(), task);
        if (status instanceof SampleDispatcher.Status.Waiting && retrieve.waitMillis() > 0) {
            Cancellable timeout = context.scheduleOnce(Duration.ofMillis(retrieve.waitMillis()),
                    context.getSelf(), new PollTimeout(task, retrieve.replyTo()));
            waiters.computeIfAbsent(task, _ -> new ArrayList<>(1)).add(new Waiter(retrieve, timeout));
        } else {
            retrieve.replyTo().tell(reply(retrieve.request(), status));
        }
    }

    /// The request was accepted by the router of another coordinator, or by one that has terminated.
    private void forward(SamplingCommand.Retrieve retrieve) {
        var key = SamplingCommand.key(retrieve.request().split(":", 3)[1]);
        context.ask(Receptionist.Listing.class, context.getSystem().receptionist(), Duration.ofSeconds(3),
                self -> Receptionist.find(key, self), (listing, _) -> new RouterFound(retrieve,
                        listing == null ? Set.of() : listing.getServiceInstances(key)));
    }

    /// The router that accepted the request has terminated: loads the request from the store.
    private void loadRequest(SamplingCommand.Retrieve retrieve) {
        context.pipeToSelf(store.find(retrieve.request()), (found, failed) -> new RequestLoaded(retrieve,
                found == null ? Optional.empty() : found,
                Optional.ofNullable(failed).map(Throwable::toString)));
    }

    private void requestLoaded(
            SamplingCommand.Retrieve retrieve, Optional<SampleRequestStore.StoredRequest> loaded,
            Optional<String> failure) {
        String request = retrieve.request();
        if (failure.isPresent()) {
            retrieve.replyTo().tell(new SamplingReply.Pending(request,
                    "the coordinator that accepted the request is lost, and the request cannot be read: "
                    + failure.get()));
        } else if (loaded.isEmpty()) {
            retrieve.replyTo().tell(new SamplingReply.Gone(request));
        } else if (!loaded.get().owner().equals(retrieve.owner())) {
            retrieve.replyTo().tell(new SamplingReply.Foreign(request));
        } else if (dispatcher.submit(loaded.get().owner(), loaded.get().task())
                instanceof SampleDispatcher.Submission.QueueFull(var fault)) {
            retrieve.replyTo().tell(new SamplingReply.Pending(request, fault.message()));
        } else {
            if (!request.startsWith(prefix)) adopted.put(loaded.get().task().id(), request);
            answer(retrieve, loaded.get().task().id());
        }
    }

    /// Deletes the stored requests whose results have expired: their results are gone for clients, too.
    private void removeExpired() {
        List<String> requests = dispatcher.takeExpired().stream()
                .map(task -> Optional.ofNullable(adopted.remove(task)).orElse(prefix + task)).toList();
        if (!requests.isEmpty()) store.remove(requests).whenComplete((_, failed) -> {
            if (failed != null) LOG.warn("{} sampling requests whose results have expired stay stored until"
                    + " they are {} old: {}", requests.size(), requestAge, failed.toString());
        });
    }

    private static SamplingReply reply(String request, SampleDispatcher.Status status) {
        return switch (status) {
            case SampleDispatcher.Status.Waiting(var state) -> new SamplingReply.Pending(request, state);
            case SampleDispatcher.Status.Completed(var result) ->
                    new SamplingReply.Completed(request, result);
            case SampleDispatcher.Status.Failed(var fault) -> new SamplingReply.Failed(request, fault);
            case SampleDispatcher.Status.NotOwned _ -> new SamplingReply.Foreign(request);
            case SampleDispatcher.Status.Unknown _ -> new SamplingReply.Gone(request);
        };
    }

    /// Another actor publishes the directory, so it may still contain an engine whose loss this router
    /// already knows of. Requests sent to that engine would be lost again.
    private void updateEngines(EngineDirectory directory) {
        lost.retainAll(directory.engines().stream().map(EngineDirectory.Engine::ref).toList());
        List<EngineDirectory.Engine> present =
                directory.engines().stream().filter(e -> !lost.contains(e.ref())).toList();
        dispatcher.updateEngines(present.stream().filter(e -> !e.models().isEmpty())
                .map(e -> new SampleDispatcher.EngineStatus<>(e.ref(), e.models(), e.queuedSequences()))
                .toList());
        present.forEach(e -> {
            if (watched.add(e.ref())) context.watchWith(e.ref(), new EngineTerminated(e.ref()));
        });
    }

    private void send(SampleDispatcher.Assignment<ActorRef<EngineCommand>> assignment) {
        String task = assignment.task().id();
        ActorRef<Command> self = context.getSelf();
        ActorRef<EngineReply> adapter = replyAdapters.computeIfAbsent(task,
                _ -> context.spawnAnonymous(Behaviors.<Object>receiveMessage(reply -> {
                    switch (reply) {
                        case LargeReply large -> self.tell(new LargeFromEngine(task, large));
                        case EngineReply whole -> self.tell(new FromEngine(task, whole));
                        default -> throw new IllegalStateException("not a reply of an engine: " + reply);
                    }
                    return Behaviors.same();
                })).narrow());
        assignment.engine().tell(new EngineCommand.Sample(assignment.task(), adapter));
        Follower follower = followers.get(task);
        if (follower != null) ask(follower.question(), task, assignment.engine());
    }

    /// Follows a request of this router: its engine answers, or the outcome does. A new question about a
    /// request takes the place of the last one.
    private void follow(SamplingCommand.Follow follow) {
        Optional<String> task = task(follow.request());
        SampleDispatcher.Status status = task.isEmpty() ? new SampleDispatcher.Status.Unknown()
                : dispatcher.status(follow.owner(), task.get());
        if (!(status instanceof SampleDispatcher.Status.Waiting)) {
            follow.replyTo().tell(reply(follow.request(), status));
            return;
        }
        Cancellable timeout = context.scheduleOnce(Duration.ofMillis(follow.waitMillis()), context.getSelf(),
                new FollowTimeout(task.get(), follow.replyTo()));
        Follower before = followers.put(task.get(), new Follower(follow, timeout));
        if (before != null) before.timeout().cancel();
        dispatcher.engine(task.get()).ifPresent(engine -> ask(follow, task.get(), engine));
    }

    private void ask(SamplingCommand.Follow follow, String task, ActorRef<EngineCommand> engine) {
        ActorRef<EngineReply> adapter = replyAdapters.get(task);
        if (adapter != null) engine.tell(new EngineCommand.FollowSample(task, follow.received(), adapter));
    }

    private void followTimeout(String task, ActorRef<SamplingReply> replyTo) {
        Follower follower = followers.get(task);
        if (follower == null || !follower.question().replyTo().equals(replyTo)) return;
        followers.remove(task);
        replyTo.tell(reply(follower.question().request(), dispatcher.status(task)));
    }

    /// Tokens of a request have arrived for its follower.
    private void drawn(String task, List<DrawnTokens> sequences) {
        Follower follower = followers.remove(task);
        if (follower == null) return;
        handedOut.put(task, sequences.stream().mapToLong(s -> s.from() + s.tokens().length).sum());
        follower.timeout().cancel();
        follower.question().replyTo().tell(
                new SamplingReply.Drawn(follower.question().request(), sequences));
    }

    /// Gives a request up. What its followers got of it counts.
    private void cancel(String owner, String task) {
        boolean unfinished = dispatcher.status(owner, task) instanceof SampleDispatcher.Status.Waiting;
        dispatcher.cancel(owner, task, now()).ifPresent(engine ->
                engine.tell(new EngineCommand.CancelSample(task)));
        Long sampled = handedOut.get(task);
        if (unfinished && sampled != null) dispatcher.request(task).ifPresent(given ->
                meter.finished(given.owner(), given.task(), sampled));
        if (dispatcher.status(owner, task) instanceof SampleDispatcher.Status.Failed) replyToWaiters(task);
    }

    private void engineReplied(String task, EngineReply reply) {
        boolean finished = switch (reply) {
            case EngineReply.Sampled(_, var result) -> complete(task, result);
            case EngineReply.RequestFailed(var fault) when fault.code().equals("blob_missing") -> {
                lookForWeights(task, fault);
                yield false;
            }
            case EngineReply.RequestFailed(var fault) -> dispatcher.handleFailure(task, fault, now());
            case EngineReply.Drawn(_, var sequences) -> {
                drawn(task, sequences);
                yield false;
            }
            case EngineReply.Description _, EngineReply.Tokenized _, EngineReply.Detokenized _,
                    EngineReply.DetokenizedNext _, EngineReply.DetokenizedEach _,
                    EngineReply.Aligned _, EngineReply.TokenizerFiles _ ->
                    dispatcher.handleFailure(task, Fault.server("sampling_failed",
                            "the worker sent an unexpected reply"), now());
        };
        if (finished) replyToWaiters(task);
    }

    private boolean complete(String task, SampleResult result) {
        boolean first = dispatcher.complete(task, result, now());
        if (first) dispatcher.request(task).ifPresent(done -> meter.finished(done.owner(), done.task(),
                result.sequences().stream().mapToLong(s -> s.tokens().length).sum()));
        return first;
    }

    /// Weights are missing: if their run has released them, that is the reason.
    private void lookForWeights(String task, Fault fault) {
        dispatcher.weights(task).ifPresent(use -> context.pipeToSelf(
                keeper.keepWeights(use.owner(), use.adapter().blob().id(), false), (reply, _) ->
                        new WeightsChecked(task, fault, reply instanceof RunReply.Refused(var reason, var why)
                                && reason == Reason.EXPIRED ? Optional.of(why) : Optional.empty())));
    }

    private void replyToWaiters(String task) {
        ActorRef<EngineReply> adapter = replyAdapters.remove(task);
        if (adapter != null) context.stop(adapter);
        handedOut.remove(task);
        Follower follower = followers.remove(task);
        if (follower != null) {
            follower.timeout().cancel();
            follower.question().replyTo().tell(
                    reply(follower.question().request(), dispatcher.status(task)));
        }
        List<Waiter> waiting = waiters.remove(task);
        if (waiting == null) return;
        for (Waiter waiter : waiting) {
            waiter.timeout().cancel();
            waiter.retrieve().replyTo().tell(reply(waiter.retrieve().request(), dispatcher.status(task)));
        }
    }

    private void pollTimeout(String task, ActorRef<SamplingReply> replyTo) {
        List<Waiter> waiting = waiters.getOrDefault(task, List.of());
        Optional<Waiter> over = waiting.stream().filter(w ->
                w.retrieve().replyTo().equals(replyTo)).findFirst();
        if (over.isEmpty()) return;
        waiting.remove(over.get());
        if (waiting.isEmpty()) waiters.remove(task);
        replyTo.tell(reply(over.get().retrieve().request(), dispatcher.status(task)));
    }
}
