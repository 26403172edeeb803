package bios.coordinator.gateway;

import bios.coordinator.fleet.EngineDirectory;
import bios.protocol.client.Answer;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.session.SessionCommand;
import bios.protocol.session.SessionCommand.SessionReply;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.function.Supplier;
import java.util.regex.Pattern;

/// Health, client configuration, sessions and tokenizers.
final class ServiceEndpoints {
    private static final Pattern SESSION =
            Pattern.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}");
    /// Largest text of one `tokenize`, in UTF-8: it travels to a worker as one message.
    private static final int MAX_TEXT_BYTES = 4 << 20;
    private static final int MAX_PROJECT = 256;
    private final GatewayServices services;
    private final Supplier<UUID> ids;
    private final Callers callers;

    ServiceEndpoints(GatewayServices services, Supplier<UUID> ids, Callers callers) {
        this.services = services;
        this.ids = ids;
        this.callers = callers;
    }

    List<Endpoint> endpoints() {
        return List.of(Endpoint.get("healthz", _ -> health()).withoutKey(),
                Endpoint.post("client/config", _ -> completed(ApiResponse.ok("pjwt_auth_enabled",
                        callers.givesTokens(),
                        "credential_default_source", "api_key", "use_pyqwest_transport", false,
                        "proto_compress_fwdbwd", false, "parallel_fwdbwd_chunks", true,
                        "fwdbwd_max_chunk_len", Math.min(1024, services.settings().maxDatums()),
                        "fwdbwd_max_chunk_bytes_count", 5_000_000))).ignoringBody().thatReads(),
                Endpoint.post("auth/token", this::token).ignoringBody().thatReads(),
                Endpoint.get("whoami", call -> completed(ApiResponse.ok("account", call.account(), "scope",
                        call.caller().scope().word()))),
                Endpoint.post("client/dynamic_config",
                        _ -> completed(ApiResponse.ok("refresh_interval_sec", 300))).ignoringBody()
                        .thatReads(),
                Endpoint.get("get_server_capabilities", _ -> completed(capabilities(services.directory()))),
                Endpoint.post("create_session", this::createSession),
                Endpoint.post("session_heartbeat", this::heartbeat),
                Endpoint.post("telemetry", _ -> completed(ApiResponse.ok("status", "accepted")))
                        .ignoringBody().thatReads(),
                Endpoint.post("tokenize", this::tokenize).thatReads(),
                Endpoint.post("detokenize", this::detokenize).thatReads());
    }

    private static CompletionStage<ApiResponse> completed(ApiResponse reply) {
        return CompletableFuture.completedStage(reply);
    }

    /// A token in exchange for the key of the request.
    private CompletionStage<ApiResponse> token(ApiRequest call) {
        if (!callers.givesTokens())
            throw new ApiException(ErrorCode.UNSUPPORTED, "this service gives no tokens"
                    + " (bios.gateway.token-secret is not set); send the key itself");
        return completed(ApiResponse.ok("jwt", callers.token(call.caller())));
    }

    private CompletionStage<ApiResponse> health() {
        if (!services.ready())
            throw new ApiException(ErrorCode.UNAVAILABLE, "the service is starting; retry later");
        return completed(ApiResponse.ok("status", "ok"));
    }

    private static ApiResponse capabilities(EngineDirectory directory) {
        return ApiResponse.typed(new Answer.Models(directory.servedModels()), "supported_models",
                directory.servedModels().stream().map(ServiceEndpoints::model).toList(),
                "unserved_models", directory.unservedModels().stream()
                        .map(m -> ApiResponse.object("model_name", m.name(), "reason", m.reason())).toList());
    }

    private static Map<String, Object> model(ModelInfo model) {
        return ApiResponse.object("model_name", model.name().value(), "max_context_length",
                model.contextLength(),
                "architecture", model.architecture(), "vocab_size", model.vocabularySize(),
                "hidden_size", model.hiddenSize(), "layers", model.layers(),
                "dtype", model.dtype(), "parameters", model.parameters(),
                "fingerprint", model.fingerprint(), "tokenizer_id", model.name().value());
    }

    private CompletionStage<ApiResponse> createSession(ApiRequest call) {
        Fields fields = call.bodyFields();
        List<String> tags = fields.optionalStrings("tags").orElse(List.of());
        String metadata = fields.optionalJsonText("user_metadata", services.settings().maxMetadataBytes())
                .orElse("{}");
        String version = fields.optionalString("sdk_version").orElse("");
        Optional<String> project = project(fields);
        Optional<String> given = fields.optionalString("session_id");
        fields.requireAllRead();
        if (tags.size() > 64) throw fields.at("tags").invalid("has " + tags.size() + " entries; at most 64");
        limit(fields.at("tags"), tags.stream().mapToLong(String::length).sum());
        limit(fields.at("sdk_version"), version.length());
        given.filter(id -> !SESSION.matcher(id).matches()).ifPresent(id -> {
            throw fields.at("session_id").invalid("'" + id + "' is not a UUID");
        });
        String session = given.orElseGet(() -> ids.get().toString());
        return services.session(session, SessionReply.Described.class,
                replyTo -> new SessionCommand.Open(call.account(), tags, metadata, version,
                        services.clock().millis(), project, replyTo))
                .thenApply(_ -> ApiResponse.typed(new Answer.SessionOpened(session), "type", "create_session",
                        "session_id", session));
    }

    /// The name of a project in the field `project_id`.
    static Optional<String> project(Fields fields) {
        return project(fields, "project_id");
    }

    /// The name of a project in a field.
    static Optional<String> project(Fields fields, String field) {
        Optional<String> project = fields.optionalString(field);
        project.filter(name -> name.isBlank() || name.length() > MAX_PROJECT).ifPresent(name -> {
            throw fields.at(field).invalid("has " + name.length() + " characters; expected 1 to "
                    + MAX_PROJECT);
        });
        return project;
    }

    private void limit(FieldPath at, long characters) {
        int most = services.settings().maxMetadataBytes();
        if (characters > most) throw at.invalid("has " + characters + " characters; at most " + most);
    }

    private CompletionStage<ApiResponse> heartbeat(ApiRequest call) {
        Fields fields = call.bodyFields();
        String session = fields.string("session_id");
        fields.requireAllRead();
        return services.session(session, SessionReply.Described.class,
                replyTo -> new SessionCommand.Heartbeat(call.account(), replyTo))
                .thenApply(_ -> ApiResponse.ok("type", "session_heartbeat"));
    }

    private CompletionStage<ApiResponse> tokenize(ApiRequest call) {
        Fields fields = call.bodyFields();
        ModelInfo model = services.model(fields.at("base_model"), fields.string("base_model"), true);
        String text = fields.string("text");
        long bytes = text.length() <= MAX_TEXT_BYTES / 3 ? text.length()
                : text.getBytes(StandardCharsets.UTF_8).length;
        if (bytes > MAX_TEXT_BYTES)
            throw fields.at("text").invalid("has " + bytes + " bytes; at most " + MAX_TEXT_BYTES);
        boolean special = fields.bool("add_special_tokens", false);
        fields.requireAllRead();
        return services.engine(model.name(), EngineReply.Tokenized.class,
                        replyTo -> new EngineCommand.Tokenize(model.name(), text, special, replyTo))
                .thenApply(reply -> ApiResponse.typed(new Answer.Tokens(reply.tokens()), "tokens",
                                reply.tokens()));
    }

    private CompletionStage<ApiResponse> detokenize(ApiRequest call) {
        Fields fields = call.bodyFields();
        ModelInfo model = services.model(fields.at("base_model"), fields.string("base_model"), true);
        int[] tokens = ModelInputReader.tokens(fields.at("tokens"), fields.required("tokens"), model);
        if (tokens.length > services.settings().maxTokensPerRequest())
            throw fields.at("tokens").invalid("has " + tokens.length + " tokens; at most "
                    + services.settings().maxTokensPerRequest());
        boolean skip = fields.bool("skip_special_tokens", true);
        fields.requireAllRead();
        return services.engine(model.name(), EngineReply.Detokenized.class,
                        replyTo -> new EngineCommand.Detokenize(model.name(), tokens, skip, replyTo))
                .thenApply(reply -> ApiResponse.typed(new Answer.Text(reply.text()), "text", reply.text()));
    }
}
