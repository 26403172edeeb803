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

/// The making, describing and ending of runs.
final class RunCalls {
    private final Backend backend;
    private final Operations operations;
    private final OperationReader reader;

    RunCalls(Backend backend, Operations operations) {
        this.backend = backend;
        this.operations = operations;
        this.reader = new OperationReader(backend.settings());
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.post("create_model", this::createModel),
                Endpoint.post("load_training_client", this::loadTrainingClient),
                Endpoint.post("get_info", this::info),
                Endpoint.post("unload_model", this::unload),
                Endpoint.post("weights_info", this::weightsInfo));
    }

    /// A run id as a client wrote it; what cannot be one names no run.
    static RunId runId(String text) {
        try {
            return new RunId(text);
        } catch (Invalid _) {
            throw Backend.noRun(text);
        }
    }

    private CompletionStage<Reply> createModel(Call call) {
        Fields fields = call.fields();
        String session = fields.string("session_id");
        long seq = fields.integer("model_seq_id", 0, Long.MAX_VALUE);
        ModelInfo model = backend.model(fields.at("base_model"), fields.string("base_model"), true);
        Optional<Fields> lora = fields.optionalObject("lora_config");
        boolean chosen = lora.filter(given -> given.has("rank")).isPresent();
        LoraSpec spec = reader.lora(lora, Ids.seed(session, seq));
        String metadata = fields.optionalFree("user_metadata", backend.settings().maxMetadataBytes())
                .orElse("{}");
        fields.done();
        var config = new RunConfig(Ids.run(model.name(), session, seq), call.account(), model.name(), spec,
                chosen, Optional.empty(), metadata, session, backend.clock().millis());
        return create(call, config).thenApply(_ -> Answers.future(config.run() + ":create", config.run()));
    }

    /// The session is asked first, so that nobody makes runs in another's; it remembers
    /// the run once there is one.
    private CompletionStage<RunReply.Described> create(Call call, RunConfig config) {
        return backend.session(config.session(), SessionReply.Described.class,
                replyTo -> new SessionCommand.Describe(call.account(), replyTo))
                .thenCompose(_ -> backend.run(call.account(), config.run(), RunReply.Described.class,
                        replyTo -> new RunCommand.Create(config, replyTo)))
                .thenCompose(run -> backend.session(config.session(), SessionReply.Described.class,
                        replyTo -> new SessionCommand.AddRun(call.account(), config.run(), replyTo))
                        .thenApply(_ -> run));
    }

    private CompletionStage<Reply> loadTrainingClient(Call call) {
        Fields fields = call.fields();
        String session = fields.string("session_id");
        long seq = fields.integer("model_seq_id", 0, Long.MAX_VALUE);
        CheckpointPath path = path(fields, "path");
        String metadata = fields.optionalFree("user_metadata", backend.settings().maxMetadataBytes())
                .orElse("{}");
        fields.done();
        return resolve(call, path).thenCompose(manifest -> {
            if (manifest.kind() == CheckpointKind.SAMPLER)
                throw new Refusal(Code.WEIGHTS_ONLY, "path",
                        path + " holds sampler weights only; resume from a path that save_state gave");
            ModelInfo model = backend.model(At.BODY.field("path"), manifest.baseModel().value(), true);
            CheckpointPath found = manifest.path().orElse(path);
            var config = new RunConfig(Ids.run(model.name(), session, seq), call.account(), model.name(),
                    manifest.lora(), true, Optional.of(found.bios()), metadata, session,
                    backend.clock().millis());
            return create(call, config).thenCompose(_ -> operations.submit(call, config.run(), 0,
                    new Operation.LoadState(found, true), ""));
        });
    }

    /// A path as a client wrote it.
    static CheckpointPath path(Fields fields, String name) {
        String text = fields.string(name);
        return Fields.named(fields.at(name), () -> CheckpointPath.parse(text));
    }

    private CompletionStage<CheckpointManifest> resolve(Call call, CheckpointPath path) {
        return operations.resolve(call.account(), path);
    }

    private CompletionStage<Reply> info(Call call) {
        Fields fields = call.fields();
        RunId run = runId(fields.string("model_id"));
        fields.done();
        return backend.describe(run, call.account()).thenApply(described -> {
            Optional<ModelInfo> model = backend.fleet().model(described.config().baseModel());
            String name = described.config().baseModel().value();
            return Reply.ok("type", "get_info", "model_id", run.value(), "is_lora", true,
                    "lora_rank", described.lora().rank(), "model_name", name,
                    "model_data", Reply.object("arch", model.map(ModelInfo::architecture), "model_name", name,
                            "tokenizer_id", name), "lora_alpha", described.lora().alpha(),
                    "target_modules", Answers.targets(described.lora()),
                    "step", described.step(), "max_context_length", model.map(ModelInfo::contextLength));
        });
    }

    private CompletionStage<Reply> unload(Call call) {
        Fields fields = call.fields();
        RunId run = runId(fields.string("model_id"));
        fields.done();
        return backend.run(call.account(), run, RunReply.Done.class,
                replyTo -> new RunCommand.Unload(call.account(), replyTo))
                .thenApply(_ -> Answers.future(run + ":unload", run));
    }

    private CompletionStage<Reply> weightsInfo(Call call) {
        Fields fields = call.fields();
        if (fields.has("path") == fields.has("tinker_path"))
            throw At.BODY.field("path").invalid("give exactly one of path and tinker_path");
        CheckpointPath path = path(fields, fields.has("path") ? "path" : "tinker_path");
        fields.done();
        return resolve(call, path).thenApply(manifest -> {
            var answer = Reply.object("base_model", manifest.baseModel().value(), "is_lora", true,
                    "lora_rank", manifest.lora().rank(), "lora_alpha", manifest.lora().alpha(),
                    "target_modules", Answers.targets(manifest.lora()), "step", manifest.step(),
                    "metadata", JsonWriter.raw(manifest.userMetadata()),
                    "kind", manifest.kind().name().toLowerCase(Locale.ROOT));
            answer.putAll(Answers.flags(manifest.lora()));
            return new Reply.Value(200, answer, false);
        });
    }
}
