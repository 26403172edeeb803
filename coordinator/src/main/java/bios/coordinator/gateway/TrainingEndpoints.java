package bios.coordinator.gateway;

import bios.protocol.Fault;
import bios.protocol.Invalid;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.ModelInfo;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.protocol.run.OperationKind;
import bios.protocol.run.RunId;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;

/// The numbered operations of runs.
final class TrainingEndpoints {
    private static final String RECIPIENTS = "age_encryption_recipients";
    /// The longest TTL of a checkpoint: 100 years.
    static final long MAX_TTL_SECONDS = 100L * 365 * 24 * 3600;
    private final GatewayServices services;
    private final RunClient runs;
    private final OperationReader reader;
    private final AuditLog audit;
    private final Quotas quotas;
    private final WeightsTokens tokens;
    private final RunEndpoints creation;

    TrainingEndpoints(GatewayServices services, RunClient runs, AuditLog audit, Quotas quotas,
            WeightsTokens tokens, RunEndpoints creation) {
        this.creation = creation;
        this.services = services;
        this.runs = runs;
        this.audit = audit;
        this.quotas = quotas;
        this.tokens = tokens;
        this.reader = new OperationReader(services.settings());
    }

    List<Endpoint> endpoints() {
        return List.of(
                Endpoint.post("forward_backward", call -> evaluate(call, "forward_backward_input", false))
                        .orProtobuf(),
                Endpoint.post("forward", call -> evaluate(call, "forward_input", true)).orProtobuf(),
                Endpoint.post("optim_step", this::optimStep),
                Endpoint.post("save_weights", this::saveWeights),
                Endpoint.post("save_weights_for_sampler", this::saveForSampler),
                Endpoint.post("save_weights_external", this::saveExternal),
                Endpoint.post("load_weights", this::loadWeights));
    }

    /// The run and the number that every operation names.
    private record Target(Fields fields, RunId run, long seq) {
        static Target of(ApiRequest call) {
            Fields fields = call.bodyFields();
            String model = fields.string("model_id");
            return new Target(fields, RunEndpoints.runId(model), fields.integer("seq_id", 1, Long.MAX_VALUE));
        }
    }

    private CompletionStage<ApiResponse> evaluate(ApiRequest call, String field, boolean forward) {
        Target target = Target.of(call);
        boolean forwardOnly = target.fields().bool("forward_only", forward) || forward;
        boolean part = target.fields().bool("part", false) || call.isTinkerClient();
        Fields input = target.fields().object(call.sentProtobuf() ? "forward_backward_input" : field);
        if (services.directory().modelOfSlug(target.run().slug()).isEmpty())
            return services.checkOwner(target.run(), call.account()).thenApply(_ -> {
                throw new IllegalStateException("checkOwner accepted run " + target.run()
                        + ", whose base model is unknown");
            });
        ModelInfo model = services.model(target.run());
        String suffix = forwardOnly ? ":forward" : "";
        Operation operation;
        try {
            operation = reader.batch(input, model, forwardOnly, call.heap());
            target.fields().requireAllRead();
        } catch (Invalid | ApiException wrong) {
            return refused(call, target, part, forwardOnly, wrong, suffix);
        }
        return runs.submit(call, target.run(), target.seq(), operation, suffix);
    }

    /// The answer to a batch that is wrong. A part of a larger one, which Tinker's clients send without
    /// saying so and do not go on after if it is refused, is accepted and fails, so that what follows it
    /// fails too and no optimizer step applies the gradient of the other parts alone.
    private CompletionStage<ApiResponse> refused(ApiRequest call, Target target, boolean part,
            boolean forwardOnly, RuntimeException wrong, String suffix) {
        ApiException error = wrong instanceof Invalid invalid ? ApiException.of(invalid)
                : (ApiException) wrong;
        if (!part || error.code().status() != 400) throw wrong;
        String code = error.wireCode();
        return runs.submitRefused(call, target.run(), target.seq(),
                forwardOnly ? OperationKind.FORWARD : OperationKind.FORWARD_BACKWARD,
                Fault.user(code, error.getMessage()), suffix);
    }

    private CompletionStage<ApiResponse> optimStep(ApiRequest call) {
        Target target = Target.of(call);
        Optional<AdamParams> params = target.fields().optionalObject("adam_params").map(reader::adam);
        target.fields().requireAllRead();
        return runs.submit(call, target.run(), target.seq(), new Operation.OptimStep(params), "");
    }

    private CompletionStage<ApiResponse> saveWeights(ApiRequest call) {
        Target target = Target.of(call);
        Fields fields = target.fields();
        CheckpointName name = name(fields);
        String metadata = fields.optionalJsonText("metadata", services.settings().maxMetadataBytes())
                .orElse("{}");
        Optional<Long> ttl = fields.optionalInteger("ttl_seconds", 1, MAX_TTL_SECONDS);
        fields.bool("overwrite", true);
        fields.requireAllRead();
        return save(call, target, CheckpointKind.TRAINING, name,
                new Operation.SaveState(name, metadata, ttl), "");
    }

    /// Submits the save of a named checkpoint, if the account may store more.
    private CompletionStage<ApiResponse> save(ApiRequest call, Target target, CheckpointKind kind,
            CheckpointName name, Operation operation, String suffix) {
        String event = kind == CheckpointKind.TRAINING ? "save_weights" : "save_weights_for_sampler";
        var path = new CheckpointPath(target.run(), Optional.of(kind), name);
        return quotas.checkStored(call.account())
                .thenCompose(_ -> runs.submit(call, target.run(), target.seq(), operation, suffix))
                .thenCompose(audit.record(call, event, Optional.of(target.run()), Optional.of(path),
                        "save " + target.run() + " " + target.seq()));
    }

    private static CheckpointName name(Fields fields) {
        String name = fields.string("path");
        return Fields.reportAt(fields.at("path"), () -> new CheckpointName(name));
    }

    private CompletionStage<ApiResponse> saveForSampler(ApiRequest call) {
        Target target = Target.of(call);
        Fields fields = target.fields();
        Optional<CheckpointName> name = fields.has("path") ? Optional.of(name(fields)) : Optional.empty();
        Optional<Long> sampler = fields.optionalInteger("sampling_session_seq_id", 0,
                KnownSamplers.MOST_NUMBER);
        Optional<Long> ttl = fields.optionalInteger("ttl_seconds", 1, MAX_TTL_SECONDS);
        fields.requireAllRead();
        if (name.isPresent() == sampler.isPresent())
            throw fields.at("path").invalid("give exactly one of path (a lasting checkpoint) and"
                    + " sampling_session_seq_id (a snapshot for this session)");
        if (name.isPresent())
            return save(call, target, CheckpointKind.SAMPLER, name.get(),
                    new Operation.SaveSamplerWeights(name, ttl, Optional.empty()), "");
        // A retried save may have another sampler number, so the number is not part of the operation.
        return services.summarize(target.run(), call.account()).thenCompose(run -> {
            String session = run.config().session();
            return runs.submit(call, target.run(), target.seq(),
                    new Operation.SaveSamplerWeights(name, Optional.empty(), Optional.of(session)),
                    ":sampler:" + session + ":" + sampler.get());
        });
    }

    /// Saves sampler weights whose files are then fetched one by one. They are the same files as those of
    /// any sampler weights, so they are found under their name by both calls.
    private CompletionStage<ApiResponse> saveExternal(ApiRequest call) {
        Target target = Target.of(call);
        CheckpointName name = name(target.fields());
        Optional<Long> ttl = target.fields().optionalInteger("ttl_seconds", 1, MAX_TTL_SECONDS);
        if (!target.fields().optionalStrings(RECIPIENTS).orElse(List.of()).isEmpty())
            throw new ApiException(ErrorCode.UNSUPPORTED, RECIPIENTS,
                    "files are not encrypted here; encrypt what you have downloaded");
        target.fields().requireAllRead();
        return save(call, target, CheckpointKind.SAMPLER, name,
                new Operation.SaveSamplerWeights(Optional.of(name), ttl, Optional.empty()), ":external");
    }

    /// Loads a checkpoint into a run or, where a session and a number are given instead of one, into a new
    /// run.
    private CompletionStage<ApiResponse> loadWeights(ApiRequest call) {
        Fields fields = call.bodyFields();
        Optional<String> model = fields.optionalString("model_id");
        Optional<Long> seq = fields.optionalInteger("seq_id", 1, Long.MAX_VALUE);
        Optional<String> session = fields.optionalString("session_id");
        Optional<Long> modelSeq = fields.optionalInteger("model_seq_id", 0, Long.MAX_VALUE);
        Optional<String> baseModel = fields.optionalString("base_model");
        Optional<String> metadata = fields.optionalJsonText("user_metadata",
                services.settings().maxMetadataBytes());
        CheckpointPath path = RunEndpoints.path(fields, "path");
        boolean optimizer = fields.bool("optimizer", true);
        Optional<String> token = fields.optionalString(WeightsTokens.FIELD);
        fields.requireAllRead();
        if (model.isPresent() == session.isPresent()) throw fields.at("model_id").invalid("give model_id and"
                + " seq_id (to load into a run), or session_id and model_seq_id (into a new one)");
        CompletionStage<Void> checked = tokens.check(call, path, token);
        if (session.isPresent()) {
            var from = new RunEndpoints.NewFrom(session.get(), modelSeq.orElseThrow(() ->
                    fields.at("model_seq_id").invalid("is missing")), path, optimizer, baseModel,
                    metadata.orElse("{}"));
            return checked.thenCompose(_ -> creation.loadAsNew(call, from, ":load"));
        }
        for (String name : List.of("model_seq_id", "base_model", "user_metadata"))
            if (fields.has(name)) throw fields.at(name).invalid("belongs to a new run, with session_id");
        RunId run = RunEndpoints.runId(model.orElseThrow());
        long number = seq.orElseThrow(() -> fields.at("seq_id").invalid("is missing"));
        return checked.thenCompose(_ -> runs.submit(call, run, number,
                new Operation.LoadState(path, optimizer), ""));
    }
}
