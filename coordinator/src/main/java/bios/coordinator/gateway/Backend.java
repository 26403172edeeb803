package bios.coordinator.gateway;

import bios.coordinator.fleet.Fleet;
import bios.persistence.blob.BlobStore;
import bios.persistence.index.RunIndex;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
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
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.javadsl.AskPattern;

/// What the calls use of the rest of the service; every refusal of another part becomes a [Refusal] here.
final class Backend {
    private final ActorSystem<?> system;
    private final Gateway.Parts parts;
    private final GatewaySettings settings;
    private final Executor blocking;

    Backend(ActorSystem<?> system, Gateway.Parts parts, GatewaySettings settings, Executor blocking) {
        this.system = system;
        this.parts = parts;
        this.settings = settings;
        this.blocking = blocking;
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

    Fleet fleet() {
        return parts.fleet().get();
    }

    boolean ready() {
        return parts.ready().getAsBoolean();
    }

    /// Runs what blocks, on a virtual thread.
    <T> CompletionStage<T> blocking(Callable<T> work) {
        var done = new CompletableFuture<T>();
        blocking.execute(() -> {
            try {
                done.complete(work.call());
            } catch (Throwable failed) {
                done.completeExceptionally(failed);
            }
        });
        return done;
    }

    /// Asks a run for an answer of one kind.
    <R extends RunReply> CompletionStage<R> run(String account, RunId run, Class<R> expected,
            Function<ActorRef<RunReply>, RunCommand> message) {
        return run(account, run, message, settings.askTimeout()).thenApply(reply -> expect(expected, reply));
    }

    /// Asks a run; only refusals are told apart.
    CompletionStage<RunReply> run(String account, RunId run, Function<ActorRef<RunReply>, RunCommand> message,
            Duration timeout) {
        return located(account, run).thenCompose(_ -> straight(parts.runs().ask(run, message, timeout)))
                .thenApply(reply -> {
                    if (reply instanceof RunReply.Refused refused) throw Refusal.of(refused);
                    return reply;
                });
    }

    /// Runs of a base model that nobody has served since this process began may exist, or may never have.
    private CompletionStage<Void> located(String account, RunId run) {
        if (fleet().modelOfSlug(run.slug()).isPresent()) return CompletableFuture.completedStage(null);
        // Before any worker is known, nothing can be said of any run.
        if (fleet().served().isEmpty()) return CompletableFuture.failedStage(noWorker(run));
        return blocking(() -> listed(account, run)).thenAccept(exists -> {
            if (!exists) throw noRun(run.value());
            throw noWorker(run);
        });
    }

    private boolean listed(String account, RunId run) {
        for (long offset = 0;; offset += RunIndex.MAX_PAGE) {
            var page = parts.index().runs(account, RunIndex.MAX_PAGE, offset);
            if (page.items().stream().anyMatch(summary -> summary.config().run().equals(run))) return true;
            if (page.items().size() < RunIndex.MAX_PAGE) return false;
        }
    }

    private static Refusal noWorker(RunId run) {
        return new Refusal(Code.NO_WORKER, "no worker serves the base model of run " + run
                + " at the moment; it is kept until one does");
    }

    static Refusal noRun(String id) {
        return new Refusal(Code.NOT_FOUND, "there is no run '" + id + "', or it is not yours");
    }

    CompletionStage<RunReply.Described> describe(RunId run, String account) {
        return run(account, run, RunReply.Described.class,
                replyTo -> new RunCommand.Describe(account, replyTo));
    }

    /// Asks a session for an answer of one kind.
    <R extends SessionReply> CompletionStage<R> session(String session, Class<R> expected,
            Function<ActorRef<SessionReply>, SessionCommand> message) {
        if (!session.matches("[A-Za-z0-9][A-Za-z0-9._-]{0,127}"))
            throw new Refusal(Code.NOT_FOUND, "there is no session '" + session + "', or it is not yours")
                    .aboutSession();
        return straight(parts.sessions().ask(session, message, settings.askTimeout())).thenApply(reply -> {
            if (reply instanceof SessionReply.Refused(var fault)) throw Refusal.of(fault).aboutSession();
            return expect(expected, reply);
        });
    }

    CompletionStage<SamplingReply> router(Function<ActorRef<SamplingReply>, SamplingCommand> message,
            Duration timeout) {
        return straight(AskPattern.ask(parts.router(), message::apply, timeout, system.scheduler()));
    }

    /// Asks the least busy engine that holds the model.
    <R extends EngineReply> CompletionStage<R> engine(ModelName model, Class<R> expected,
            Function<ActorRef<EngineReply>, EngineCommand> message) {
        Fleet.Engine engine = fleet().enginesOf(model).stream()
                .min(Comparator.comparingInt(Fleet.Engine::queuedSequences))
                .orElseThrow(() -> noWorker(model));
        return straight(AskPattern.ask(engine.ref(), message::apply, settings.askTimeout(),
                system.scheduler())).thenApply(reply -> {
                    if (reply instanceof EngineReply.NotDone(var fault)) throw Refusal.of(fault);
                    return expect(expected, reply);
                });
    }

    private <T> CompletionStage<T> straight(CompletionStage<T> asked) {
        return Repeated.straight(asked, system);
    }

    private static <R> R expect(Class<R> expected, Object reply) {
        if (!expected.isInstance(reply))
            throw new IllegalStateException("expected " + expected.getSimpleName() + ", got "
                    + reply.getClass().getSimpleName());
        return expected.cast(reply);
    }

    /// The model of this name; served now if `now`.
    ModelInfo model(At at, String name, boolean now) {
        ModelName model = Fields.named(at, () -> new ModelName(name));
        List<ModelInfo> served = fleet().served();
        ModelInfo info = fleet().model(model).orElseThrow(() -> served.isEmpty()
                ? new Refusal(Code.NO_WORKER, at.toString(),
                        "no worker is up at the moment; try again in a moment")
                : new Refusal(Code.UNKNOWN_MODEL, at.toString(),
                        "'" + name + "' is not served here; served are "
                        + String.join(", ", served.stream().map(m -> m.name().value()).toList())));
        if (now && fleet().enginesOf(model).isEmpty()) throw noWorker(model);
        return info;
    }

    /// The base model of a run whose entity answers.
    ModelInfo model(RunId run) {
        return fleet().modelOfSlug(run.slug()).orElseThrow(() -> noWorker(run));
    }

    private static Refusal noWorker(ModelName model) {
        return new Refusal(Code.NO_WORKER,
                "no worker serves " + model + " at the moment; try again in a moment");
    }

    /// The cause of what a stage failed with.
    static Throwable cause(Throwable failed) {
        return failed instanceof CompletionException && failed.getCause() != null
                ? cause(failed.getCause()) : failed;
    }
}
