package bios.coordinator.gateway;

import bios.protocol.Invalid;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelInfo;
import bios.protocol.run.Operation;
import bios.protocol.run.RunCommand;
import bios.protocol.run.RunCommand.RunReply;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.CompletionStage;

/// Creates, describes and unloads runs.
final class RunEndpoints {
    private final GatewayServices services;
    private final RunClient runs;
    private final OperationReader reader;
    private final AuditLog audit;
    private final Quotas quotas;

    RunEndpoints(GatewayServices services, RunClient runs, AuditLog audit, Quotas quotas) {
        this.services = services;
        this.runs = runs;
        this.audit = audit;
        this.quotas = quotas;
        this.reader = new OperationReader(services.settings());
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.post("create_model", this::createModel),
                Endpoint.post("load_training_client", this::loadTrainingClient),
                Endpoint.post("get_info", this::info).thatReads(),
                Endpoint.post("unload_model", this::unload),
                Endpoint.post("weights_info", this::weightsInfo).thatReads());
    }

    /// Parses a run id; a malformed id is refused like an unknown run.
    static RunId runId(String text) {
        try {
            return new RunId(text);
        } catch (Invalid _) {
            throw GatewayServices.noRun(text);
        }
    }

    private CompletionStage<ApiResponse> createModel(ApiRequest call) {
        Fields fields = call.bodyFields();
        String session = fields.string("session_id");
        long seq = fields.integer("model_seq_id", 0, Long.MAX_VALUE);
        ModelInfo model = services.model(fields.at("base_model"), fields.string("base_model"), true);
        Optional<Fields> lora = fields.optionalObject("lora_config");
        boolean chosen = lora.filter(given -> given.has("rank")).isPresent();
        LoraSpec spec = reader.lora(lora, DerivedIds.seed(session, seq));
        String metadata = fields.optionalJsonText("user_metadata", services.settings().maxMetadataBytes())
                .orElse("{}");
        fields.requireAllRead();
        var config = new RunConfig(DerivedIds.run(model.name(), session, seq), call.account(), model.name(),
                spec,
                chosen, Optional.empty(), metadata, session, services.clock().millis(),
                model.fingerprint());
        return create(call, config)
                .thenApply(_ -> ResponseBodies.future(config.run() + ":create", config.run()));
    }

    /// Checks the owner of the session, creates the run in its project, then adds it to the session.
    CompletionStage<RunReply.Described> create(ApiRequest call, RunConfig config) {
        return services.session(config.session(), SessionReply.Described.class,
                replyTo -> new SessionCommand.Describe(call.account(), replyTo))
                .thenCompose(session -> quotas.checkRuns(call.account(), config.run()).thenCompose(_ ->
                        services.run(call.account(), config.run(), RunReply.Described.class, replyTo ->
                                new RunCommand.Create(config.in(session.project()), replyTo))))
                .thenCompose(run -> services.session(config.session(), SessionReply.Described.class,
                        replyTo -> new SessionCommand.AddRun(call.account(), config.run(), replyTo))
                        .thenApply(_ -> run))
                .thenCompose(audit.record(call, "create_model", Optional.of(config.run()), Optional.empty(),
                        "create " + config.run()));
    }

    private CompletionStage<ApiResponse> loadTrainingClient(ApiRequest call) {
        Fields fields = call.bodyFields();
        String session = fields.string("session_id");
        long seq = fields.integer("model_seq_id", 0, Long.MAX_VALUE);
        CheckpointPath path = path(fields, "path");
        String metadata = fields.optionalJsonText("user_metadata", services.settings().maxMetadataBytes())
                .orElse("{}");
        fields.requireAllRead();
        return loadAsNew(call, new NewFrom(session, seq, path, true, Optional.empty(), metadata), "");
    }

    /// A run that begins with a checkpoint.
    ///
    /// @param optimizer whether the moments and the step of the checkpoint are loaded too
    /// @param baseModel of the checkpoint, if the caller has said it
    record NewFrom(String session, long seq, CheckpointPath path, boolean optimizer,
            Optional<String> baseModel, String metadata) {}

    /// Creates a run with the shape of a checkpoint, and loads it as operation 0. A repetition finds both.
    CompletionStage<ApiResponse> loadAsNew(ApiRequest call, NewFrom from, String suffix) {
        CheckpointPath path = from.path();
        return resolve(call, path).thenCompose(manifest -> {
            from.baseModel().filter(name -> !name.equals(manifest.baseModel().value())).ifPresent(name -> {
                throw new ApiException(ErrorCode.INVALID, "base_model", "is " + name + ", but " + path
                        + " was made from " + manifest.baseModel());
            });
            if (from.optimizer() && manifest.kind() == CheckpointKind.SAMPLER)
                throw new ApiException(ErrorCode.WEIGHTS_ONLY, "path",
                        path + " contains sampler weights only; resume from a path returned by save_state");
            ModelInfo model = services.model(FieldPath.BODY.field("path"), manifest.baseModel()
                    .value(), true);
            CheckpointPath found = manifest.path().orElse(path);
            var config = new RunConfig(DerivedIds.run(model.name(), from.session(), from.seq()),
                    call.account(), model.name(), manifest.lora(), true, Optional.of(found.biosUri()),
                    from.metadata(), from.session(), services.clock().millis(), model.fingerprint());
            return create(call, config).thenCompose(_ -> runs.submit(call, config.run(), 0,
                    new Operation.LoadState(found, from.optimizer()), suffix));
        });
    }

    /// Parses the path of a checkpoint.
    static CheckpointPath path(Fields fields, String name) {
        String text = fields.string(name);
        return Fields.reportAt(fields.at(name), () -> CheckpointPath.parse(text));
    }

    private CompletionStage<CheckpointManifest> resolve(ApiRequest call, CheckpointPath path) {
        return runs.resolve(call.account(), path);
    }

    private CompletionStage<ApiResponse> info(ApiRequest call) {
        Fields fields = call.bodyFields();
        RunId run = runId(fields.string("model_id"));
        fields.requireAllRead();
        return services.summarize(run, call.account()).thenApply(summary -> {
            Optional<ModelInfo> model = services.directory().model(summary.config().baseModel());
            String name = summary.config().baseModel().value();
            return ApiResponse.ok("type", "get_info", "model_id", run.value(), "is_lora", true,
                    "lora_rank", summary.lora().rank(), "model_name", name,
                    "model_data", ApiResponse.object("arch", model.map(ModelInfo::architecture),
                    "model_name", name,
                            "tokenizer_id", name), "lora_alpha", summary.lora().alpha(),
                    "target_modules", ResponseBodies.targets(summary.lora()),
                    "step", summary.step(), "max_context_length", model.map(ModelInfo::contextLength));
        });
    }

    private CompletionStage<ApiResponse> unload(ApiRequest call) {
        Fields fields = call.bodyFields();
        RunId run = runId(fields.string("model_id"));
        fields.requireAllRead();
        return services.run(call.account(), run, RunReply.Done.class,
                replyTo -> new RunCommand.Unload(call.account(), replyTo))
                .thenCompose(audit.record(call, "unload_model", run))
                .thenApply(_ -> ResponseBodies.future(run + ":unload", run));
    }

    private CompletionStage<ApiResponse> weightsInfo(ApiRequest call) {
        Fields fields = call.bodyFields();
        if (fields.has("path") == fields.has("tinker_path"))
            throw FieldPath.BODY.field("path").invalid("give exactly one of path and tinker_path");
        CheckpointPath path = path(fields, fields.has("path") ? "path" : "tinker_path");
        fields.requireAllRead();
        return resolve(call, path).thenApply(manifest -> {
            var answer = ApiResponse.object("base_model", manifest.baseModel().value(), "is_lora", true,
                    "lora_rank", manifest.lora().rank(), "lora_alpha", manifest.lora().alpha(),
                    "target_modules", ResponseBodies.targets(manifest.lora()), "step", manifest.step(),
                    "metadata", JsonWriter.raw(manifest.userMetadata()),
                    "kind", manifest.kind().name().toLowerCase(Locale.ROOT));
            answer.putAll(ResponseBodies.flags(manifest.lora()));
            return new ApiResponse.JsonBody(200, answer, false);
        });
    }
}
