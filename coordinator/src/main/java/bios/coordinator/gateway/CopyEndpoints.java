package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.model.ModelInfo;
import bios.protocol.run.Operation;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletionStage;

/// Copies of checkpoints: of the caller's own into another project, or of what another account has published.
/// A copy has the kind and the name of its source, and a run of its own.
final class CopyEndpoints {
    private final GatewayServices services;
    private final RunEndpoints creation;
    private final RunClient runs;
    private final AuditLog audit;
    private final Quotas quotas;
    private final WeightsTokens tokens;
    private final CheckpointRuns copies;

    CopyEndpoints(GatewayServices services, RunEndpoints creation, RunClient runs, AuditLog audit,
            Quotas quotas, WeightsTokens tokens) {
        this.services = services;
        this.creation = creation;
        this.runs = runs;
        this.audit = audit;
        this.quotas = quotas;
        this.tokens = tokens;
        this.copies = new CheckpointRuns(services);
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.post("copy_weights", this::copy));
    }

    private CompletionStage<ApiResponse> copy(ApiRequest call) {
        Fields fields = call.bodyFields();
        String session = fields.string("session_id");
        long seq = fields.integer("model_seq_id", 0, Long.MAX_VALUE);
        CheckpointPath source = RunEndpoints.path(fields, "source_path");
        Optional<Long> ttl = fields.optionalInteger("ttl_seconds", 1, TrainingEndpoints.MAX_TTL_SECONDS);
        Optional<String> token = fields.optionalString(WeightsTokens.FIELD);
        fields.requireAllRead();
        return tokens.check(call, source, token).thenCompose(_ -> runs.resolve(call.account(), source))
                .thenCompose(manifest -> copies.make(call, order(call, session, seq, source, manifest, ttl)))
                .thenCompose(copy -> {
                    CheckpointPath path = copy.path().orElseThrow();
                    return audit.<ApiResponse>record(call, "copy_weights", Optional.of(copy.run()),
                            Optional.of(path), "copy to " + copy.run()).apply(ApiResponse.ok("tinker_path",
                                    path.tinkerUri(), "path", path.biosUri()));
                });
    }

    private CheckpointRuns.Order order(ApiRequest call, String session, long seq, CheckpointPath source,
            CheckpointManifest manifest, Optional<Long> ttl) {
        ModelInfo model = services.model(FieldPath.BODY.field("source_path"), manifest.baseModel().value(),
                true);
        CheckpointPath found = manifest.path().orElse(source);
        // The number of a run that is trained, if it is used here too, is that of another run.
        RunId run = DerivedIds.run(model.name(), "copies of " + session, seq);
        var config = new RunConfig(run, call.account(), model.name(), manifest.lora(), true,
                Optional.of(found.biosUri()), "{}", session, services.clock().millis(), model.fingerprint());
        boolean training = manifest.kind() == CheckpointKind.TRAINING;
        CheckpointName name = found.name();
        Operation save = training ? new Operation.SaveState(name, manifest.userMetadata(), ttl)
                : new Operation.SaveSamplerWeights(Optional.of(name), ttl, Optional.empty());
        return new CheckpointRuns.Order(run, name, config.parent(), "model_seq_id", "source_path",
                "use a new number", "repeat the request", () ->
                        quotas.checkStored(call.account(), manifest::bytes)
                .thenCompose(_ -> creation.create(call, config))
                .thenCompose(_ -> runs.submit(call, run, CheckpointRuns.LOAD,
                        new Operation.LoadState(found, training), ""))
                .thenCompose(_ -> runs.submit(call, run, CheckpointRuns.SAVE, save, "")));
    }
}
