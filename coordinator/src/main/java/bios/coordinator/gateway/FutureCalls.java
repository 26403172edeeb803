package bios.coordinator.gateway;

import bios.coordinator.sampling.SamplingRouter;
import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.OperationResult;
import bios.protocol.run.RequestId;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunId;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.Sampler;
import bios.protocol.session.SessionCommand.SessionReply;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;

/// `retrieve_future`: waits for results. A run or router that does not answer is a poll without result, never
/// a fast 5xx: clients repeat polls at once.
final class FutureCalls {
    /// A little longer than the wait itself, and together shorter than the 45 s of Tinker's clients.
    private static final Duration GRACE = Duration.ofSeconds(5);
    private final Backend backend;

    FutureCalls(Backend backend) {
        this.backend = backend;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.post("retrieve_future", this::retrieve));
    }

    private CompletionStage<Reply> retrieve(Call call) {
        Fields fields = call.fields();
        String request = fields.string("request_id");
        fields.bool("allow_metadata_only", false);
        fields.done();
        CompletionStage<Reply> answer = SamplingRouter.isRequest(request)
                ? sampled(call, request) : answer(call, request);
        return answer.handle((reply, failed) -> failed == null ? CompletableFuture.completedStage(reply)
                : later(request, failed)).thenCompose(Function.identity());
    }

    private CompletionStage<Reply> later(String request, Throwable failed) {
        Throwable cause = Backend.cause(failed);
        if (cause instanceof TimeoutException)
            return CompletableFuture.completedStage(Answers.tryAgain(request,
                    "the run is being moved or restored"));
        if (!(cause instanceof Refusal refusal) || refusal.code().status() != 503)
            return CompletableFuture.failedStage(cause);
        long pause = Math.min(backend.settings().longPoll().toMillis(), 2000);
        return CompletableFuture.supplyAsync(() -> Answers.tryAgain(request, refusal.getMessage()),
                CompletableFuture.delayedExecutor(pause, TimeUnit.MILLISECONDS));
    }

    private CompletionStage<Reply> sampled(Call call, String request) {
        long wait = backend.settings().longPoll().toMillis();
        return backend.router(replyTo -> new SamplingCommand.Retrieve(call.account(), request, wait, replyTo),
                backend.settings().longPoll().plus(GRACE)).thenApply(reply -> switch (reply) {
                    case SamplingReply.Completed(_, var result) -> Answers.sampled(result);
                    case SamplingReply.Failed(_, var fault) -> Answers.failed(fault);
                    case SamplingReply.Pending(_, var state) -> Answers.tryAgain(request, state);
                    // An unknown request may be one whose result has expired, and a request of another account
                    // is answered like an unknown one.
                    case SamplingReply.Foreign _, SamplingReply.Gone _ -> throw new Refusal(Code.GONE, "request_id",
                            "the service no longer has sampling request '"
                            + request + "'; submit it again, with the same seed it gives the same tokens");
                    case SamplingReply.Refused(var fault) -> throw Refusal.of(fault);
                    case SamplingReply.Accepted _ ->
                            throw new IllegalStateException("a retrieval was accepted");
                });
    }

    private CompletionStage<Reply> answer(Call call, String id) {
        return switch (FutureId.parse(id)) {
            case FutureId.Created(var run) -> backend.describe(run, call.account())
                    .thenApply(_ -> Reply.ok("type", "create_model", "model_id", run.value()));
            case FutureId.Unloaded(var run) -> backend.describe(run, call.account()).thenApply(described -> {
                if (!described.closed())
                    throw new Refusal(Code.NOT_FOUND, "request_id", "there is no request '" + id + "'");
                return Reply.ok("type", "unload_model", "model_id", run.value());
            });
            case FutureId.Ran(var request) ->
                    result(call, id, request, (_, result) -> shown(call, request, result, false));
            case FutureId.Forward(var request) ->
                    result(call, id, request, (_, result) -> shown(call, request, result, true));
            case FutureId.Snapshot snapshot -> result(call, id, snapshot.request(), (run, result) ->
                result instanceof OperationResult.Saved(var manifest) && manifest.name().isEmpty()
                        ? open(call, snapshot, manifest) : shown(call, run, result, false));
        };
    }

    private interface Show {
        CompletionStage<Reply> of(RequestId request, OperationResult result);
    }

    private CompletionStage<Reply> result(Call call, String id, RequestId request, Show show) {
        Duration wait = backend.settings().longPoll();
        return backend.run(call.account(), request.run(), replyTo -> new RunCommand.Retrieve(call.account(),
                request.seq(), wait.toMillis(), replyTo), wait.plus(GRACE))
                .thenCompose(reply -> switch (reply) {
                    case RunReply.Completed(_, var result) -> show.of(request, result);
                    case RunReply.Failed(_, var fault) ->
                            CompletableFuture.completedStage(Answers.failed(fault));
                    case RunReply.Pending(_, int ahead) ->
                            CompletableFuture.completedStage(Answers.tryAgain(id, ahead == 0
                                    ? "it is being executed" : ahead + " operations are before it"));
                    case RunReply.Stalled(_, var why) -> CompletableFuture.completedStage(
                            Answers.stalled(id, why.message()));
                    case RunReply.Accepted _, RunReply.Described _, RunReply.Resolved _, RunReply.Timed _,
                            RunReply.Recounted _, RunReply.Done _, RunReply.Refused _ ->
                            throw new IllegalStateException("unexpected answer to a retrieval: "
                                    + reply.getClass().getSimpleName());
                });
    }

    private static CompletionStage<Reply> shown(Call call, RequestId request, OperationResult result,
            boolean forwardOnly) {
        RunId run = request.run();
        return CompletableFuture.completedStage(switch (result) {
            case OperationResult.Evaluated evaluated -> Answers.evaluated(call, evaluated, forwardOnly);
            case OperationResult.Stepped stepped -> Answers.stepped(stepped);
            case OperationResult.Saved(var manifest) -> Answers.saved(call, manifest);
            case OperationResult.Loaded loaded -> Answers.loaded(call, run, loaded, request.seq() == 0);
        });
    }

    /// The snapshot is there: its session opens a sampler of it, once.
    private CompletionStage<Reply> open(Call call, FutureId.Snapshot snapshot, CheckpointManifest manifest) {
        var sampler = new Sampler(manifest.baseModel(), Optional.empty(), Optional.of(
                new SampleTask.Adapter(manifest.contentId(), manifest.lora(), manifest.adapter())));
        return backend.session(snapshot.session(), SessionReply.SamplerOpened.class, replyTo ->
                new SessionCommand.OpenSampler(call.account(), snapshot.sampler(), sampler, replyTo))
                .thenApply(opened -> opened.sampler().adapter().map(SampleTask.Adapter::contentId)
                        .equals(Optional.of(manifest.contentId()))
                        ? Reply.ok("type", "save_weights_for_sampler", "path", null,
                                "sampling_session_id", opened.samplerId(), "step", manifest.step())
                        : Answers.failed(Fault.user("conflict",
                                "sampling_session_seq_id " + snapshot.sampler()
                                + " is another sampler's in this session; use a new number")));
    }
}
