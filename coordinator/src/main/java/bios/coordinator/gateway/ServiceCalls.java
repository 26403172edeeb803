package bios.coordinator.gateway;

import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Supplier;
import java.util.regex.Pattern;

/// The service itself: health, handshake, sessions, tokenizers.
final class ServiceCalls {
    private static final Pattern SESSION =
            Pattern.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}");
    private final Backend backend;
    private final Supplier<UUID> ids;

    ServiceCalls(Backend backend, Supplier<UUID> ids) {
        this.backend = backend;
        this.ids = ids;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("healthz", _ -> health()).open(),
                Endpoint.post("client/config", _ -> at(Reply.ok("pjwt_auth_enabled", false,
                        "credential_default_source", "api_key", "use_pyqwest_transport", false,
                        "proto_compress_fwdbwd", false, "parallel_fwdbwd_chunks", true,
                        "fwdbwd_max_chunk_len", Math.min(1024, backend.settings().maxDatums()),
                        "fwdbwd_max_chunk_bytes_count", 5_000_000))).unread(),
                Endpoint.post("client/dynamic_config",
                        _ -> at(Reply.ok("refresh_interval_sec", 300))).unread(),
                Endpoint.get("get_server_capabilities", _ -> at(Reply.ok("supported_models",
                        backend.fleet().served().stream().map(ServiceCalls::model).toList()))),
                Endpoint.post("create_session", this::createSession),
                Endpoint.post("session_heartbeat", this::heartbeat),
                Endpoint.post("telemetry", _ -> at(Reply.ok("status", "accepted"))).unread(),
                Endpoint.post("tokenize", this::tokenize), Endpoint.post("detokenize", this::detokenize));
    }

    private static CompletionStage<Reply> at(Reply reply) {
        return CompletableFuture.completedStage(reply);
    }

    private CompletionStage<Reply> health() {
        if (!backend.ready())
            throw new Refusal(Code.UNAVAILABLE, "the service is starting; try again in a moment");
        return at(Reply.ok("status", "ok"));
    }

    private static Map<String, Object> model(ModelInfo model) {
        return Reply.object("model_name", model.name().value(), "max_context_length", model.contextLength(),
                "architecture", model.architecture(), "vocab_size", model.vocabularySize(),
                "hidden_size", model.hiddenSize(), "layers", model.layers(),
                "dtype", model.dtype(), "parameters", model.parameters());
    }

    private CompletionStage<Reply> createSession(Call call) {
        Fields fields = call.fields();
        List<String> tags = fields.optionalStrings("tags").orElse(List.of());
        String metadata = fields.optionalFree("user_metadata", backend.settings().maxMetadataBytes())
                .orElse("{}");
        String version = fields.optionalString("sdk_version").orElse("");
        fields.optionalString("project_id");
        Optional<String> given = fields.optionalString("session_id");
        fields.done();
        if (tags.size() > 64) throw fields.at("tags").invalid("has " + tags.size() + " entries; at most 64");
        given.filter(id -> !SESSION.matcher(id).matches()).ifPresent(id -> {
            throw fields.at("session_id").invalid("'" + id + "' is not a UUID");
        });
        String session = given.orElseGet(() -> ids.get().toString());
        return backend.session(session, SessionReply.Described.class,
                replyTo -> new SessionCommand.Open(call.account(), tags, metadata, version,
                        backend.clock().millis(), replyTo))
                .thenApply(_ -> Reply.ok("type", "create_session", "session_id", session));
    }

    private CompletionStage<Reply> heartbeat(Call call) {
        Fields fields = call.fields();
        String session = fields.string("session_id");
        fields.done();
        return backend.session(session, SessionReply.Described.class,
                replyTo -> new SessionCommand.Heartbeat(call.account(), replyTo))
                .thenApply(_ -> Reply.ok("type", "session_heartbeat"));
    }

    private CompletionStage<Reply> tokenize(Call call) {
        Fields fields = call.fields();
        ModelInfo model = backend.model(fields.at("base_model"), fields.string("base_model"), true);
        String text = fields.string("text");
        boolean special = fields.bool("add_special_tokens", false);
        fields.done();
        return backend.engine(model.name(), EngineReply.Tokenized.class,
                        replyTo -> new EngineCommand.Tokenize(model.name(), text, special, replyTo))
                .thenApply(reply -> Reply.ok("tokens", reply.tokens()));
    }

    private CompletionStage<Reply> detokenize(Call call) {
        Fields fields = call.fields();
        ModelInfo model = backend.model(fields.at("base_model"), fields.string("base_model"), true);
        int[] tokens = ModelInputReader.tokens(fields.at("tokens"), fields.required("tokens"), model);
        boolean skip = fields.bool("skip_special_tokens", true);
        fields.done();
        return backend.engine(model.name(), EngineReply.Detokenized.class,
                        replyTo -> new EngineCommand.Detokenize(model.name(), tokens, skip, replyTo))
                .thenApply(reply -> Reply.ok("text", reply.text()));
    }
}
