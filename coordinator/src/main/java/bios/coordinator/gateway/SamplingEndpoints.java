package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.client.Answer;
import bios.protocol.model.ModelInfo;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingCommand;
import bios.protocol.sampling.SamplingCommand.SamplingReply;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.Sampler;
import bios.protocol.session.SessionCommand.SessionReply;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Supplier;

/// Samplers and sampling requests.
final class SamplingEndpoints {
    private final GatewayServices services;
    private final RunClient runs;
    private final SampleReader reader;
    private final KnownSamplers samplers;
    private final Supplier<UUID> ids;

    SamplingEndpoints(GatewayServices services, RunClient runs, Supplier<UUID> ids) {
        this.ids = ids;
        this.services = services;
        this.runs = runs;
        this.samplers = new KnownSamplers(services);
        this.reader = new SampleReader(services.settings());
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.post("create_sampling_session", this::createSampler),
                Endpoint.get("samplers/*", this::describe),
                Endpoint.post("join_sampling_session", this::joinSampler),
                Endpoint.post("asample", this::sample));
    }

    private CompletionStage<ApiResponse> createSampler(ApiRequest call) {
        Fields fields = call.bodyFields();
        String session = fields.string("session_id");
        long seq = fields.integer("sampling_session_seq_id", 0, KnownSamplers.MOST_NUMBER);
        if (fields.has("base_model") == fields.has("model_path"))
            throw fields.at("base_model").invalid("give exactly one of base_model and model_path");
        Optional<CheckpointPath> path = fields.has("model_path")
                ? Optional.of(RunEndpoints.path(fields, "model_path")) : Optional.empty();
        Optional<ModelInfo> model = fields.optionalString("base_model")
                .map(name -> services.model(fields.at("base_model"), name, false));
        fields.requireAllRead();
        CompletionStage<Sampler> wanted = path.isEmpty()
                ? CompletableFuture.completedStage(new Sampler(model.orElseThrow().name(), Optional.empty(),
                        Optional.empty())) : runs.resolve(call.account(), path.get())
                .thenApply(manifest -> new Sampler(manifest.baseModel(), manifest.path()
                        .map(CheckpointPath::biosUri),
                        Optional.of(SampleTask.Adapter.of(manifest))));
        return wanted.thenCompose(sampler -> services.session(session, SessionReply.SamplerOpened.class,
                replyTo ->
                new SessionCommand.OpenSampler(call.account(), seq, sampler, replyTo)).thenApply(opened -> {
                    Sampler first = opened.sampler();
                    if (!first.path().equals(sampler.path())
                            || !first.baseModel().equals(sampler.baseModel()))
                        throw new ApiException(ErrorCode.CONFLICT, "sampling_session_seq_id",
                                seq + " is used by another sampler of this session; use a new number");
                    return ApiResponse.typed(new Answer.SamplerOpened(opened.samplerId()),
                            "type", "create_sampling_session",
                            "sampling_session_id", opened.samplerId());
                }));
    }

    private CompletionStage<ApiResponse> describe(ApiRequest call) {
        String id = call.pathParameters().getFirst();
        return samplers.use(call, "sampler_id", id)
                .thenApply(sampler ->
                ApiResponse.ok("sampler_id", id, "base_model", sampler.baseModel().value(),
                        "model_path", sampler.path()
                        .map(path -> call.clientPath(CheckpointPath.parse(path)))));
    }

    /// A number for another client of a sampler, drawn from 1 to 2^32: a client counts its requests from a
    /// billion times this number. Nothing is stored, and clients that meet by chance do no harm: a request is
    /// the one of before only if its content is the same, too.
    private CompletionStage<ApiResponse> joinSampler(ApiRequest call) {
        Fields fields = call.bodyFields();
        String id = fields.string("sampling_session_id");
        fields.requireAllRead();
        return samplers.use(call, "sampling_session_id", id).thenApply(_ -> ApiResponse.ok("type",
                "join_sampling_session", "client_counter",
                1 + (ids.get().getMostSignificantBits() >>> Integer.SIZE)));
    }

    private CompletionStage<ApiResponse> sample(ApiRequest call) {
        Fields fields = call.bodyFields();
        String id = fields.string("sampling_session_id");
        long seq = fields.integer("seq_id", 0, Long.MAX_VALUE);
        return samplers.use(call, "sampling_session_id", id).thenCompose(sampler -> {
            ModelInfo model = services.model(fields.at("sampling_session_id"), sampler.baseModel().value(),
                    false);
            SampleTask task = reader.task(fields, id, seq, sampler, model);
            return services.router(replyTo -> new SamplingCommand.Submit(call.account(), task, replyTo),
                    services.settings().askTimeout()).thenApply(reply -> accepted(reply, task.numSamples()));
        });
    }

    private static ApiResponse accepted(SamplingReply reply, int samples) {
        return switch (reply) {
            case SamplingReply.Accepted(var request) ->
                    ApiResponse.typed(new Answer.Submitted(request, Optional.empty()), "request_id", request,
                            "model_id", null, "sample_sequence_ids",
                            ResponseBodies.sequenceIds(request, samples));
            case SamplingReply.Refused(var fault) -> throw ApiException.of(fault);
            case SamplingReply.Completed _, SamplingReply.Drawn _, SamplingReply.Failed _,
                    SamplingReply.Pending _,
                    SamplingReply.Foreign _, SamplingReply.Gone _ ->
                    throw new IllegalStateException("unexpected reply to a sampling request: "
                            + reply.getClass().getSimpleName());
        };
    }
}
