package bios.coordinator.gateway;

import bios.coordinator.sampling.SamplingRouter;
import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.client.Answer;
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

/// `retrieve_future`: waits for results. If the run or the router does not answer, the poll ends without a
/// result (408) and not with a 5xx, because clients repeat polls at once. So it does for Tinker's clients if
/// the run or its session is damaged: they repeat every 5xx, others tell their user.
final class FutureEndpoints {
    /// Added to the wait, for the reply to arrive; the sum is below the 45 s timeout of Tinker's clients.
    private static final Duration GRACE = Duration.ofSeconds(5);
    private final GatewayServices services;

    FutureEndpoints(GatewayServices services) {
        this.services = services;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.post("retrieve_future", this::retrieve).thatReads());
    }

    private CompletionStage<ApiResponse> retrieve(ApiRequest call) {
        Fields fields = call.bodyFields();
        String request = fields.string("request_id");
        fields.bool("allow_metadata_only", false);
        fields.requireAllRead();
        CompletionStage<ApiResponse> answer = SamplingRouter.isRequest(request)
                ? retrieveSample(call, request) : retrieveOperation(call, request);
        return answer.handle((reply, failed) -> failed == null ? CompletableFuture.completedStage(reply)
                : retryLater(call, request, failed)).thenCompose(Function.identity());
    }

    private CompletionStage<ApiResponse> retryLater(ApiRequest call, String request, Throwable failed) {
        Throwable cause = GatewayServices.cause(failed);
        if (cause instanceof TimeoutException)
            return CompletableFuture.completedStage(ResponseBodies.pendingResult(request,
                    "the run is being moved or recovered"));
        boolean unavailable = cause instanceof ApiException known && known.code().status() == 503;
        if (!unavailable && !call.isTinkerClient()) return CompletableFuture.failedStage(cause);
        ApiException error = HttpHandler.error(call.id(), cause);
        if (error.code().status() < 500) return CompletableFuture.failedStage(cause);
        long pause = Math.min(services.settings().longPoll().toMillis(), 2000);
        return CompletableFuture.supplyAsync(() -> unavailable
                ? ResponseBodies.pendingResult(request, error.getMessage())
                : ResponseBodies.stalledResult(request, error.wireCode() + ": " + error.getMessage()),
                CompletableFuture.delayedExecutor(pause, TimeUnit.MILLISECONDS));
    }

    private CompletionStage<ApiResponse> retrieveSample(ApiRequest call, String request) {
        long wait = services.settings().longPoll().toMillis();
        return services.refuseEvenly(services.router(replyTo ->
                new SamplingCommand.Retrieve(call.account(), request, wait, replyTo),
                services.settings().longPoll().plus(GRACE)).thenApply(reply -> switch (reply) {
                    case SamplingReply.Completed(_, var result) ->
                            ResponseBodies.sampleResult(call, request, result);
                    case SamplingReply.Failed(_, var fault) -> ResponseBodies.failureResult(fault);
                    case SamplingReply.Pending(_, var state) -> ResponseBodies.pendingResult(request, state);
                    // An unknown request may be one whose result has expired, and a request of another
                    // account is answered like an unknown one.
                    case SamplingReply.Foreign _, SamplingReply.Gone _ ->
                            throw new ApiException(ErrorCode.GONE, "request_id",
                            "the service no longer has sampling request '"
                            + request + "'; submit it again, with the same seed it gives the same tokens");
                    case SamplingReply.Refused(var fault) -> throw ApiException.of(fault);
                    case SamplingReply.Accepted _, SamplingReply.Drawn _ ->
                            throw new IllegalStateException("unexpected reply to a retrieval: "
                                    + reply.getClass().getSimpleName());
                }));
    }

    private CompletionStage<ApiResponse> retrieveOperation(ApiRequest call, String id) {
        return switch (FutureId.parse(id)) {
            case FutureId.Creation(var run) -> services.checkOwner(run, call.account())
                    .thenApply(_ -> ApiResponse.typed(new Answer.Created(run.value()), "type", "create_model",
                            "model_id", run.value()));
            case FutureId.Unloading(var run) -> services.summarize(run, call.account())
                    .thenApply(summary -> {
                if (!summary.closed())
                    throw new ApiException(ErrorCode.NOT_FOUND, "request_id", "there is no request '" + id
                    + "'");
                return ApiResponse.typed(new Answer.Unloaded(run.value()), "type", "unload_model", "model_id",
                        run.value());
            });
            case FutureId.Operation(var request) ->
                    awaitResult(call, id, request, (_, result) -> resultBody(call, request, result, false));
            case FutureId.Forward(var request) ->
                    awaitResult(call, id, request, (_, result) -> resultBody(call, request, result, true));
            case FutureId.Load(var request) -> awaitResult(call, id, request, (_, result) ->
                    result instanceof OperationResult.Loaded loaded ? CompletableFuture.completedStage(
                            ResponseBodies.loadResult(call, request.run(), loaded, false))
                            : resultBody(call, request, result, false));
            case FutureId.External(var request) -> awaitResult(call, id, request, (_, result) ->
                    result instanceof OperationResult.Saved(var manifest) && manifest.name().isPresent()
                            ? CompletableFuture.completedStage(ResponseBodies.externalResult(call, manifest))
                            : resultBody(call, request, result, false));
            case FutureId.Snapshot snapshot -> awaitResult(call, id, snapshot.request(), (run, result) ->
                result instanceof OperationResult.Saved(var manifest) && manifest.name().isEmpty()
                        ? openSampler(call, snapshot, manifest) : resultBody(call, run, result, false));
        };
    }

    private interface ResultRenderer {
        CompletionStage<ApiResponse> render(RequestId request, OperationResult result);
    }

    private CompletionStage<ApiResponse> awaitResult(ApiRequest call, String id, RequestId request,
            ResultRenderer renderer) {
        Duration wait = services.settings().longPoll();
        return services.run(call.account(), request.run(), replyTo -> new RunCommand.Retrieve(call.account(),
                request.seq(), wait.toMillis(), replyTo), wait.plus(GRACE))
                .thenCompose(reply -> switch (reply) {
                    case RunReply.Completed(_, var result) -> renderer.render(request, result);
                    case RunReply.Failed(_, var fault) ->
                            CompletableFuture.completedStage(ResponseBodies.failureResult(fault));
                    case RunReply.Pending(_, int ahead) ->
                            CompletableFuture.completedStage(ResponseBodies.pendingResult(id, ahead == 0
                                    ? "it is being executed" : ahead + " operations are before it"));
                    case RunReply.Stalled(_, var why) -> CompletableFuture.completedStage(
                            ResponseBodies.stalledResult(id, why.message()));
                    case RunReply.Accepted _, RunReply.Described _, RunReply.Summary _, RunReply.Resolved _,
                            RunReply.Timings _, RunReply.History _, RunReply.Metrics _, RunReply.Done _,
                            RunReply.Refused _ ->
                            throw new IllegalStateException("unexpected reply to a retrieval: "
                                    + reply.getClass().getSimpleName());
                });
    }

    private static CompletionStage<ApiResponse> resultBody(
            ApiRequest call, RequestId request, OperationResult result,
            boolean forwardOnly) {
        RunId run = request.run();
        return CompletableFuture.completedStage(switch (result) {
            case OperationResult.Evaluated evaluated ->
                    ResponseBodies.passResult(call, evaluated, List.of(), forwardOnly);
            case OperationResult.EvaluatedMatrix(var values, var columns) ->
                    ResponseBodies.passResult(call, values, columns, forwardOnly);
            case OperationResult.Stepped stepped -> ResponseBodies.stepResult(stepped);
            case OperationResult.Saved(var manifest) -> ResponseBodies.saveResult(call, manifest);
            case OperationResult.Loaded loaded ->
                    ResponseBodies.loadResult(call, run, loaded, request.seq() == 0);
        });
    }

    /// Opens a sampler of a finished snapshot in its session; a repeated call finds the same sampler.
    private CompletionStage<ApiResponse> openSampler(ApiRequest call, FutureId.Snapshot snapshot,
            CheckpointManifest manifest) {
        var sampler = new Sampler(manifest.baseModel(), Optional.empty(), Optional.of(
                SampleTask.Adapter.of(manifest)));
        KnownSamplers.keepWeights(services, call.account(), sampler);
        return services.session(snapshot.session(), SessionReply.SamplerOpened.class, replyTo ->
                new SessionCommand.OpenSampler(call.account(), snapshot.sampler(), sampler, replyTo))
                .thenApply(opened -> opened.sampler().adapter().map(SampleTask.Adapter::contentId)
                        .equals(Optional.of(manifest.contentId()))
                        ? ApiResponse.typed(new Answer.Saved(Optional.empty(),
                                Optional.of(opened.samplerId()), manifest.step(), "{}"),
                                "type", "save_weights_for_sampler", "path", null,
                                "sampling_session_id", opened.samplerId(), "step", manifest.step())
                        : ResponseBodies.failureResult(Fault.user("conflict",
                                "sampling_session_seq_id " + snapshot.sampler()
                                + " is used by another sampler of this session; use a new number")));
    }
}
