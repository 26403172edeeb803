package bios.coordinator.gateway;

import bios.coordinator.fleet.EngineDirectory;
import bios.coordinator.run.RunSettings;
import bios.persistence.blob.BlobStore;
import bios.persistence.index.RunIndex;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import bios.protocol.model.UnservedModel;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.time.InstantSource;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.javadsl.AskPattern;

/// The gateway's access to the other parts of the service: runs, sessions, router, engines and stores. A
/// refusal of such a part becomes an [ApiException].
final class GatewayServices {
    private final ActorSystem<?> system;
    private final Gateway.Dependencies parts;
    private final GatewaySettings settings;
    private final Executor blockingExecutor;
    private final Duration leaseRenewal;
    private final ConstantTimeRefusals refusals = new ConstantTimeRefusals(
            System::nanoTime, // edge: when to answer
            delay -> CompletableFuture.delayedExecutor(delay.toNanos(), TimeUnit.NANOSECONDS));

    GatewayServices(ActorSystem<?> system, Gateway.Dependencies parts, GatewaySettings settings,
            Executor blockingExecutor) {
        this.system = system;
        this.parts = parts;
        this.settings = settings;
        this.blockingExecutor = blockingExecutor;
        this.leaseRenewal = RunSettings.from(system.settings().config()).leaseRenewal();
    }

    GatewaySettings settings() {
        return settings;
    }

    InstantSource clock() {
        return parts.clock();
    }

    RunIndex index() {
        return parts.index();
    }

    BlobStore blobs() {
        return parts.blobs();
    }

    EngineDirectory directory() {
        return parts.directory().get();
    }

    /// The memory of all requests in flight.
    RequestMemory memory() {
        return parts.memory();
    }

    boolean ready() {
        return parts.ready().getAsBoolean();
    }

    /// Runs blocking work on a virtual thread.
    <T> CompletionStage<T> runBlocking(Callable<T> work) {
        var done = new CompletableFuture<T>();
        blockingExecutor.execute(() -> {
            try {
                done.complete(work.call());
            } catch (Throwable failed) {
                done.completeExceptionally(failed);
            }
        });
        return done;
    }

    /// Asks a run and expects a reply of one type.
    <R extends RunReply> CompletionStage<R> run(String account, RunId run, Class<R> expected,
            Function<ActorRef<RunReply>, RunCommand> message) {
        return run(account, run, message, settings.askTimeout()).thenApply(reply -> expect(expected, reply));
    }

    /// Asks a run; fails with a [ApiException] if the run refuses.
    CompletionStage<RunReply> run(String account, RunId run, Function<ActorRef<RunReply>, RunCommand> message,
            Duration timeout) {
        return refusals.ask(checkModelServed(account, run)
                .thenCompose(_ -> onDispatcher(parts.runs().ask(run, message, timeout)))
                .thenCompose(reply -> reply instanceof RunReply.Refused refused
                        ? refused(account, run, refused) : CompletableFuture.completedStage(reply)));
    }

    /// A run that cannot be read does not know its owner: the index says who may learn of it.
    private CompletionStage<RunReply> refused(String account, RunId run, RunReply.Refused refused) {
        ApiException why = ApiException.of(refused);
        if (why.code() != ErrorCode.RUN_DAMAGED) return CompletableFuture.failedStage(why);
        return runBlocking(() -> isIndexed(account, run)).thenCompose(mine ->
                CompletableFuture.failedStage(mine ? why : noRun(run.value())));
    }

    /// Fails if no engine has served the run's base model since this process started. The index tells whether
    /// such a run exists.
    private CompletionStage<Void> checkModelServed(String account, RunId run) {
        if (directory().modelOfSlug(run.slug()).isPresent()) return CompletableFuture.completedStage(null);
        // Without any worker the index may be incomplete.
        if (directory().servedModels().isEmpty()) return CompletableFuture.failedStage(noWorker(run));
        return runBlocking(() -> isIndexed(account, run)).thenAccept(exists -> {
            if (!exists) throw noRun(run.value());
            throw noWorker(run);
        });
    }

    private boolean isIndexed(String account, RunId run) {
        return parts.index().allRuns(account).anyMatch(summary -> summary.config().run().equals(run));
    }

    private ApiException noWorker(RunId run) {
        Optional<String> why = directory().modelOfSlug(run.slug())
                .flatMap(model -> unserved(model.name().value()));
        return new ApiException(ErrorCode.NO_WORKER, "no worker serves the base model of run " + run
                + " at the moment" + why.map(reason -> " (" + reason + ")").orElse("")
                + "; the run is kept until one does");
    }

    static ApiException noRun(String id) {
        return new ApiException(ErrorCode.NOT_FOUND, "there is no run '" + id + "', or it is not yours");
    }

    /// Completes if the run exists and belongs to the account; refused otherwise.
    CompletionStage<RunReply.Done> checkOwner(RunId run, String account) {
        return run(account, run, RunReply.Done.class,
                replyTo -> new RunCommand.CheckOwner(account, replyTo));
    }

    /// Tells a run that weights of it are in use. Not refused: the reply says whether they are kept.
    CompletionStage<RunReply> keepWeights(String account, BlobId adapter) {
        return onDispatcher(parts.runs().ask(BlobScope.run(adapter), replyTo ->
                new RunCommand.KeepWeights(account, adapter, false, replyTo), settings.askTimeout()));
    }

    /// How often the run of a sampler's weights is told that they are in use.
    Duration leaseRenewal() {
        return leaseRenewal;
    }

    /// Describes a run without its checkpoints.
    CompletionStage<RunReply.Summary> summarize(RunId run, String account) {
        return run(account, run, RunReply.Summary.class,
                replyTo -> new RunCommand.Summarize(account, replyTo));
    }

    CompletionStage<RunReply.Described> describe(RunId run, String account) {
        return run(account, run, RunReply.Described.class,
                replyTo -> new RunCommand.Describe(account, replyTo));
    }

    /// As above; of another account's run with published checkpoints too, if `accessible`.
    CompletionStage<RunReply.Described> describe(RunId run, String account, boolean accessible) {
        return run(account, run, RunReply.Described.class,
                replyTo -> new RunCommand.Describe(account, accessible, replyTo));
    }

    /// Asks a session and expects a reply of one type.
    <R extends SessionReply> CompletionStage<R> session(String session, Class<R> expected,
            Function<ActorRef<SessionReply>, SessionCommand> message) {
        if (!session.matches("[A-Za-z0-9][A-Za-z0-9._-]{0,127}"))
            throw new ApiException(ErrorCode.NOT_FOUND, "there is no session '" + session
            + "', or it is not yours")
                    .aboutSession();
        return refusals.ask(onDispatcher(parts.sessions().ask(session, message, settings.askTimeout()))
                .thenApply(reply -> {
            if (reply instanceof SessionReply.Refused(var fault)) throw ApiException.of(fault).aboutSession();
            return expect(expected, reply);
        }));
    }

    /// Asks the entity of an account.
    CompletionStage<OwnerReply> owner(String account, Function<ActorRef<OwnerReply>, OwnerCommand> message) {
        return parts.owners().ask(account, message, settings.askTimeout()).thenApply(reply -> {
            if (reply instanceof OwnerReply.Unavailable(var why))
                throw new ApiException(ErrorCode.UNAVAILABLE, why);
            return reply;
        });
    }

    CompletionStage<SamplingReply> router(Function<ActorRef<SamplingReply>, SamplingCommand> message,
            Duration timeout) {
        return onDispatcher(AskPattern.ask(parts.router(), message::apply, timeout, system.scheduler()));
    }

    /// The same reply; the time of a refusal does not tell whether what it is about exists.
    <T> CompletionStage<T> refuseEvenly(CompletionStage<T> reply) {
        return refusals.ask(reply);
    }

    /// Tells the router something that it does not answer.
    void tellRouter(SamplingCommand message) {
        parts.router().tell(message);
    }

    /// Asks the least loaded engine that serves the model.
    <R extends EngineReply> CompletionStage<R> engine(ModelName model, Class<R> expected,
            Function<ActorRef<EngineReply>, EngineCommand> message) {
        EngineDirectory.Engine engine = directory().enginesOf(model).stream()
                .min(Comparator.comparingInt(EngineDirectory.Engine::queuedSequences))
                .orElseThrow(() -> noWorker(model));
        return onDispatcher(AskPattern.ask(engine.ref(), message::apply, settings.askTimeout(),
                system.scheduler())).thenApply(reply -> {
                    if (reply instanceof EngineReply.RequestFailed(var fault)) throw ApiException.of(fault);
                    return expect(expected, reply);
                });
    }

    private <T> CompletionStage<T> onDispatcher(CompletionStage<T> reply) {
        return AskRetry.onDispatcher(reply, system, parts.memory());
    }

    private static <R> R expect(Class<R> expected, Object reply) {
        if (!expected.isInstance(reply))
            throw new IllegalStateException("expected " + expected.getSimpleName() + ", got "
                    + reply.getClass().getSimpleName());
        return expected.cast(reply);
    }

    /// The base model of this name.
    ///
    /// @param mustBeServed whether at least one engine must serve the model now
    ModelInfo model(FieldPath at, String name, boolean mustBeServed) {
        ModelName model = Fields.reportAt(at, () -> new ModelName(name));
        List<ModelInfo> servedModels = directory().servedModels();
        ModelInfo info = directory().model(model).orElseThrow(() -> unserved(name).isPresent()
                ? noWorker(model) : servedModels.isEmpty()
                ? new ApiException(ErrorCode.NO_WORKER, at.toString(),
                        "no worker is available at the moment; retry later")
                : new ApiException(ErrorCode.UNKNOWN_MODEL, at.toString(),
                        "'" + name + "' is not served here; served are "
                        + String.join(", ", servedModels.stream().map(m -> m.name().value()).toList())));
        if (mustBeServed && directory().enginesOf(model).isEmpty()) throw noWorker(model);
        return info;
    }

    /// The base model of a run.
    ModelInfo model(RunId run) {
        return directory().modelOfSlug(run.slug()).orElseThrow(() -> noWorker(run));
    }

    private ApiException noWorker(ModelName model) {
        return new ApiException(ErrorCode.NO_WORKER, "no worker serves " + model + " at the moment"
                + unserved(model.value()).map(why -> " (" + why + ")").orElse("") + "; retry later");
    }

    /// Why no worker serves a model that one was given.
    private Optional<String> unserved(String name) {
        return directory().unservedModels().stream().filter(m -> m.name().equals(name))
                .map(UnservedModel::reason).findFirst();
    }

    /// The failure inside [CompletionException]s.
    static Throwable cause(Throwable failed) {
        return failed instanceof CompletionException && failed.getCause() != null
                ? cause(failed.getCause()) : failed;
    }
}
