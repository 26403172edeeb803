package bios.coordinator.gateway;

import static bios.coordinator.gateway.Schema.*;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;

/// The OpenAPI document of the endpoints below `/api/v1` and `/v1`. Each endpoint has its operation here, and
/// each operation its endpoint: otherwise no gateway starts. Tests compare the fields of requests and answers
/// with it.
final class ApiDocument {
    /// The description of a field that only takes values that change nothing.
    static final String UNSUPPORTED = "not supported, but for values that change nothing";
    private static final Schema RUN_METADATA = map(any());

    private ApiDocument() {}

    /// The document of these endpoints.
    static Map<String, Object> of(List<Endpoint> endpoints) {
        var operations = new LinkedHashMap<String, ApiOperation>();
        for (ApiOperation operation : operations()) operations.put(operation.endpoint(), operation);
        var byEndpoint = new TreeMap<String, Endpoint>();
        for (Endpoint each : endpoints)
            byEndpoint.put(each.method() + " " + String.join("/", each.pattern()), each);
        if (!byEndpoint.keySet().equals(new TreeSet<>(operations.keySet())))
            throw new IllegalStateException("endpoints " + byEndpoint.keySet() + " and operations "
                    + new TreeSet<>(operations.keySet()) + " differ");
        var paths = new LinkedHashMap<String, Map<String, Object>>();
        operations.forEach((name, operation) -> paths.computeIfAbsent(operation.fullPath(), _ ->
                new LinkedHashMap<>()).put(operation.method().toLowerCase(Locale.ROOT),
                operation.json(byEndpoint.get(name))));
        var schemas = new LinkedHashMap<String, Object>();
        ApiSchemas.all().forEach((name, schema) -> schemas.put(name, schema.json()));
        return ApiResponse.object("openapi", "3.1.0", "info", ApiResponse.object("title", "Bios", "version",
                FrontPage.VERSION, "description", "Training and sampling of LoRA adapters"),
                "security", List.of(Map.of("key", List.of())), "paths", paths, "components",
                ApiResponse.object("securitySchemes", Map.of("key", ApiResponse.object("type", "apiKey",
                        "in", "header", "name", "X-API-Key")), "schemas", schemas));
    }

    /// Every operation.
    static List<ApiOperation> operations() {
        var all = new ArrayList<ApiOperation>();
        service(all);
        runs(all);
        training(all);
        sampling(all);
        listings(all);
        checkpoints(all);
        sessions(all);
        records(all);
        openAi(all);
        return all;
    }

    private static Field type() {
        return may("type", string().described("ignored"));
    }

    private static ApiOperation get(String path, String summary) {
        return ApiOperation.of("GET", path, summary);
    }

    private static ApiOperation post(String path, String summary) {
        return ApiOperation.of("POST", path, summary);
    }

    private static void service(List<ApiOperation> all) {
        all.add(get("healthz", "Whether the service can serve").answering(
                object(must("status", oneOf("ok")))));
        all.add(post("client/config", "Settings of Tinker's clients; any body").answering(object(
                must("pjwt_auth_enabled", bool()), must("credential_default_source", string()),
                must("use_pyqwest_transport", bool()), must("proto_compress_fwdbwd", bool()),
                must("parallel_fwdbwd_chunks", bool()), must("fwdbwd_max_chunk_len", integer()),
                must("fwdbwd_max_chunk_bytes_count", integer()))));
        all.add(post("client/dynamic_config", "Settings that change; any body").answering(
                object(must("refresh_interval_sec", integer()))));
        all.add(post("auth/token", "A token in exchange for the key; any body").answering(
                object(must("jwt", string()))));
        all.add(get("whoami", "The account of the key").answering(object(must("account", string()),
                must("scope", oneOf("read", "write", "operator")))));
        all.add(get("get_server_capabilities", "The base models").answering(object(
                must("supported_models", array(object(must("model_name", string()),
                        must("max_context_length", integer()), must("architecture", string()),
                        must("vocab_size", integer()), must("hidden_size", integer()),
                        must("layers", integer()), must("dtype", string()), must("parameters", integer()),
                        nullable("fingerprint", string()), must("tokenizer_id", string())))),
                must("unserved_models", array(object(must("model_name", string()),
                        must("reason", string())))))));
        all.add(post("telemetry", "Accepted and dropped; any body").answering(
                object(must("status", oneOf("accepted")))));
        all.add(post("tokenize", "Tokens of a text").taking(must("base_model", string()),
                must("text", string()), may("add_special_tokens", bool()), type())
                .answering(object(must("tokens", array(integer())))));
        all.add(post("detokenize", "The text of tokens").taking(must("base_model", string()),
                must("tokens", array(integer())), may("skip_special_tokens", bool()), type())
                .answering(object(must("text", string()))));
    }

    private static void runs(List<ApiOperation> all) {
        Schema future = ref("Future");
        all.add(post("create_model", "A new run").taking(must("session_id", string()),
                must("model_seq_id", integer(0, Long.MAX_VALUE)), must("base_model", string()),
                may("lora_config", ref("LoraConfig")), may("user_metadata", RUN_METADATA), type())
                .answering(future));
        all.add(post("load_training_client", "A new run with the state of a checkpoint").taking(
                must("session_id", string()), must("model_seq_id", integer(0, Long.MAX_VALUE)),
                must("path", string()), may("user_metadata", RUN_METADATA), type()).answering(future));
        all.add(post("get_info", "A run's model and adapter").taking(must("model_id", string()), type())
                .answering(object(must("type", oneOf("get_info")), must("model_id", string()),
                        must("is_lora", bool()), must("lora_rank", integer()), must("model_name", string()),
                        must("model_data", object(nullable("arch", string()), must("model_name", string()),
                                must("tokenizer_id", string()))), must("lora_alpha", number()),
                        must("target_modules", array(string())), must("step", integer()),
                        nullable("max_context_length", integer()))));
        all.add(post("unload_model", "End a run; its checkpoints stay").taking(must("model_id", string()),
                type()).answering(future));
        all.add(post("weights_info", "What a checkpoint holds; exactly one of both paths").taking(
                may("path", string()), may("tinker_path", string()), type()).answering(object(
                must("base_model", string()), must("is_lora", bool()), must("lora_rank", integer()),
                must("lora_alpha", number()), must("target_modules", array(string())),
                must("step", integer()), must("metadata", map(any())),
                must("kind", oneOf("training", "sampler")), must("train_unembed", bool()),
                must("train_mlp", bool()), must("train_attn", bool()))));
    }

    private static Field[] operation(Field... fields) {
        var all = new ArrayList<Field>(List.of(must("model_id", string()),
                must("seq_id", integer(1, Long.MAX_VALUE)), type()));
        all.addAll(List.of(fields));
        return all.toArray(Field[]::new);
    }

    private static void training(List<ApiOperation> all) {
        Schema future = ref("Future");
        Field ttl = may("ttl_seconds", integer(1, TrainingEndpoints.MAX_TTL_SECONDS));
        all.add(post("forward_backward", "Loss and gradient of a batch").taking(operation(
                must("forward_backward_input", ref("Batch")), may("forward_only", bool()),
                may("part", bool()))).answering(future));
        all.add(post("forward", "Loss of a batch").taking(operation(must("forward_input", ref("Batch")),
                may("forward_only", bool()), may("part", bool()))).answering(future));
        all.add(post("optim_step", "A step of AdamW").taking(operation(
                may("adam_params", ref("AdamParams")))).answering(future));
        all.add(post("save_weights", "A checkpoint of weights and optimizer").taking(operation(
                must("path", string()), may("metadata", map(any())), ttl, may("overwrite", bool())))
                .answering(future));
        all.add(post("save_weights_for_sampler", "A checkpoint of weights, or a snapshot").taking(operation(
                may("path", string()), may("sampling_session_seq_id", integer(0, KnownSamplers.MOST_NUMBER)),
                ttl)).answering(future));
        all.add(post("save_weights_external", "A checkpoint of weights, to be fetched file by file").taking(
                operation(must("path", string()), ttl, may("age_encryption_recipients",
                        array(string()).described(UNSUPPORTED)))).answering(future));
        all.add(post("load_weights", "Load a checkpoint into a run (model_id, seq_id) or into a new one"
                + " (session_id, model_seq_id)").taking(must("path", string()), may("model_id", string()),
                may("seq_id", integer(1, Long.MAX_VALUE)), may("session_id", string()),
                may("model_seq_id", integer(0, Long.MAX_VALUE)), may("base_model", string()),
                may("user_metadata", RUN_METADATA), may("optimizer", bool()),
                may("weights_access_token", string()), type()).answering(future));
        all.add(post("copy_weights", "A copy of a checkpoint in the project of a session").taking(
                must("session_id", string()), must("model_seq_id", integer(0, Long.MAX_VALUE)),
                must("source_path", string()), ttl, may("weights_access_token", string()), type())
                .answering(object(must("tinker_path", string()), must("path", string()))));
        all.add(post("retrieve_future", "The result of an operation or of sampling").taking(
                must("request_id", string()), may("allow_metadata_only", bool()), type()).answering(anyOf(
                ref("PassResult"), ref("StepResult"), ref("SaveResult"), ref("SamplerResult"),
                ref("ExternalResult"), ref("LoadResult"), ref("ModelResult"), ref("SampleResult"),
                ref("Failure")))
                .or(ApiRequest.PROTOBUF_TYPES.getFirst()));
    }

    private static void sampling(List<ApiOperation> all) {
        all.add(post("create_sampling_session", "A sampler; exactly one of model and path").taking(
                must("session_id", string()),
                must("sampling_session_seq_id", integer(0, KnownSamplers.MOST_NUMBER)),
                may("base_model", string()), may("model_path", string()), type()).answering(object(
                must("type", oneOf("create_sampling_session")), must("sampling_session_id", string()))));
        all.add(get("samplers/{sampler}", "A sampler").answering(object(must("sampler_id", string()),
                must("base_model", string()), nullable("model_path", string()))));
        all.add(post("join_sampling_session", "A number for another client of a sampler").taking(
                must("sampling_session_id", string()), type()).answering(object(
                must("type", oneOf("join_sampling_session")), must("client_counter", integer()))));
        all.add(post("asample", "Draw sequences").taking(must("sampling_session_id", string()),
                must("seq_id", integer(0, Long.MAX_VALUE)), must("prompt", ref("ModelInput")),
                may("sampling_params", ref("SamplingParams")), may("num_samples", integer(1, 1024)),
                may("prompt_logprobs", bool()), may("topk_prompt_logprobs", integer(0, 100)),
                may("topk_sample_logprobs", integer(0, 100)),
                may("record_stability_info", bool().described("changes nothing")),
                may("target_prompt_logprobs", any().described(UNSUPPORTED)),
                may("prompt_alt_tokens_k", any().described(UNSUPPORTED)), type())
                .answering(ref("Future")));
    }

    private static ApiOperation paged(ApiOperation operation) {
        return operation.asking("limit", integer(1, 1000)).asking("offset", integer(0, Integer.MAX_VALUE));
    }

    private static ApiOperation ofRuns(ApiOperation operation) {
        return paged(operation).asking("project_id", string()).asking("base_model", string())
                .asking("training_run_id", string());
    }

    private static Schema scope() {
        return oneOf("owned", "accessible");
    }

    private static void listings(List<ApiOperation> all) {
        all.add(ofRuns(get("training_runs", "The account's runs, newest first; user_metadata.<name>=<value>"
                + " chooses by metadata")).asking("access_scope", scope()).answering(object(
                must("training_runs", array(ref("TrainingRun"))), must("cursor", ref("Cursor")))));
        all.add(get("training_runs/{run}", "A run").asking("access_scope", scope())
                .answering(ref("TrainingRun")));
        all.add(get("training_runs/{run}/checkpoints", "Checkpoints of a run").asking("access_scope",
                scope()).answering(object(must("checkpoints", array(ref("Checkpoint"))),
                nullable("cursor", ref("Cursor")))));
        all.add(get("training_runs/{run}/timings", "Times of the newest operations").asking("limit",
                integer(1, 1000)).answering(object(must("timings", array(ref("Timing"))))));
        Schema after = integer(0, Long.MAX_VALUE).described("waits for what is newer than this number");
        all.add(get("training_runs/{run}/history", "What happened to a run").asking("limit",
                integer(1, 1000)).asking("after", after).answering(object(
                must("history", array(ref("HistoryEntry"))))));
        all.add(get("training_runs/{run}/metrics", "What the newest operations have reported").asking("limit",
                integer(1, 1000)).asking("after", after).answering(object(
                must("metrics", array(ref("OperationMetrics"))))));
        var seq = may("seq_id", integer(0, Long.MAX_VALUE).described("the operation that is meant; without"
                + " it the call is not to be repeated"));
        all.add(post("training_runs/{run}/retry", "Try the operation that was set aside again").taking(seq,
                type()).answering(object()));
        all.add(post("training_runs/{run}/give_up", "Fail the operation that was set aside, or that waits"
                + " for a store").taking(seq, type()).answering(object()));
        all.add(ofRuns(get("checkpoints", "The account's checkpoints, newest first")).asking(
                "checkpoint_type", oneOf("training", "sampler")).asking("name", string().described(
                "how the name begins")).asking("public", bool()).answering(object(
                must("checkpoints", array(ref("Checkpoint"))), must("cursor", ref("Cursor")))));
        all.add(post("search_checkpoints", "Checkpoints that have all that is given, newest first").taking(
                may("project_ids", array(string())), may("user_metadata", map(string())),
                may("checkpoint_type", oneOf("training", "sampler")), may("owner", ref("SearchOwner")),
                may("base_models", array(string())), may("limit", integer(1, 200)),
                may("cursor", ref("SearchCursor").described("next_cursor of the page before")), type())
                .answering(object(must("checkpoints", array(ref("Checkpoint"))),
                        nullable("next_cursor", ref("SearchCursor")))));
    }

    private static void checkpoints(List<ApiOperation> all) {
        String path = "training_runs/{run}/checkpoints/{kind}/{name}";
        all.add(get(path, "A checkpoint").asking("access_scope", scope()).answering(ref("Checkpoint")));
        all.add(ApiOperation.of("DELETE", path, "Delete a checkpoint"));
        all.add(ApiOperation.of("PUT", path + "/ttl", "Set when it expires; null: never").taking(
                may("ttl_seconds", integer(1, TrainingEndpoints.MAX_TTL_SECONDS)), type()));
        all.add(post(path + "/publish", "Let every account read it; any body"));
        all.add(ApiOperation.of("DELETE", path + "/publish", "Let only its owner read it"));
        all.add(get(path + "/archive", "A signed URL of its archive, or with Accept: application/gzip the"
                + " archive; to Tinker's client with that Accept a redirect to the URL")
                .answering(object(must("url", string()), must("expires", time()))).or("application/gzip"));
        all.add(get(path + "/external_weights_urls", "A signed URL of each file of its adapter").answering(
                object(must("urls", map(string())), must("expires", time()))));
        all.add(get("external_weights/{run}/{kind}/{name}/{file}", "A file by a signed URL").asking("token",
                string()).answering(any()).or("application/octet-stream"));
        uploads(all);
        all.add(get("archives/{run}/{kind}/{name}", "An archive by a signed URL").asking("token", string())
                .answering(any()).or("application/gzip"));
    }

    private static void uploads(List<ApiOperation> all) {
        all.add(post("external_weights_upload_start", "Begin to upload an adapter that was made elsewhere")
                .taking(must("base_model", string()), may("lora_config", map(any()).described(
                        "its rank is compared with the adapter's")),
                        may("destination_project_id", string()), may("name", string()),
                        may("ttl_seconds", integer(1, TrainingEndpoints.MAX_TTL_SECONDS)),
                        may("user_metadata", RUN_METADATA), type()).answering(object(
                        must("upload_id", string()), must("urls", map(any())), must("expires", time()))));
        all.add(ApiOperation.of("PUT", "external_weights_uploads/{upload}/{file}",
                "A file by a signed URL; any body").asking("token", string()).answering(object(
                        must("file", string()), must("size_bytes", integer()), must("sha256", string()))));
        all.add(post("external_weights_upload_finish", "Make sampler weights of the uploaded files").taking(
                must("upload_id", string()), type()).answering(object(must("tinker_path", string()),
                        must("path", string()), must("lora_rank", integer()),
                        must("size_bytes", integer()))));
    }

    private static void sessions(List<ApiOperation> all) {
        all.add(post("create_session", "A session").taking(may("tags", array(string())),
                may("user_metadata", map(any())), may("sdk_version", string()), may("project_id", string()),
                may("session_id", string().described("a UUID")), type()).answering(object(
                must("type", oneOf("create_session")), must("session_id", string()))));
        all.add(post("session_heartbeat", "The client is alive").taking(must("session_id", string()), type())
                .answering(object(must("type", oneOf("session_heartbeat")))));
        all.add(paged(get("sessions", "Sessions that have runs, newest first"))
                .asking("access_scope", scope()).answering(
                object(must("sessions", array(string())))));
        all.add(get("sessions/{session}", "A session").asking("access_scope", scope()).answering(object(
                must("training_run_ids", array(string())), must("sampler_ids", array(string())))));
        all.add(ApiOperation.of("PUT", "sessions/{session}/project", "Move a session and its runs to a"
                + " project; null: to none").taking(may("project_id", string()), type()));
        all.add(get("sessions/{session}/trace_export", "A signed URL of the session's timeline").answering(
                object(must("status", oneOf("ready")), must("url", string()), nullable("error", string()))));
        all.add(get("traces/{session}", "A timeline by a signed URL").asking("token", string()).answering(
                object(must("displayTimeUnit", string()), must("otherData", map(string())),
                        must("traceEvents", array(map(any()))))));
    }

    /// The endpoints of OpenAI's clients.
    private static void openAi(List<ApiOperation> all) {
        all.add(get("/v1/models", "Models and sampler weights, in OpenAI's form").answering(object(
                must("object", oneOf("list")), must("data", array(ref("OpenAiModel"))))));
        all.add(get("/v1/models/{model}", "A model, in OpenAI's form").answering(ref("OpenAiModel")));
        all.add(messages());
        var chat = new ArrayList<Field>(List.of(must("messages", array(ref("ChatMessage"))),
                may("max_completion_tokens", integer(1, Integer.MAX_VALUE)), may("logprobs", bool()),
                may("top_logprobs", integer(0, OpenAiReader.MOST_TOPS)),
                may("chat_template_kwargs", map(any()))));
        chat.addAll(completion(1));
        all.add(post("/v1/chat/completions", "Continue a conversation, in OpenAI's form")
                .taking(chat.toArray(Field[]::new))
                .answering(anyOf(ref("ChatCompletion"), ref("OpenAiError"))).or("text/event-stream"));
        var text = new ArrayList<Field>(List.of(must("prompt", anyOf(string(), array(string()),
                array(integer()), array(array(integer())))),
                may("logprobs", integer(0, OpenAiReader.MOST_TOPS)), may("echo", bool()),
                may("best_of", integer(1, 1024))));
        text.addAll(completion(0));
        all.add(post("/v1/completions", "Continue a text, in OpenAI's form")
                .taking(text.toArray(Field[]::new))
                .answering(anyOf(ref("TextCompletion"), ref("OpenAiError"))).or("text/event-stream"));
    }

    private static ApiOperation messages() {
        var all = new ArrayList<Field>(List.of(must("model", string()), must("messages",
                array(object(must("role", oneOf("user", "assistant")),
                        must("content", ref("MessageContent"))))),
                must("max_tokens", integer(1, Integer.MAX_VALUE)), may("system", ref("MessageContent")),
                may("stop_sequences", array(string())), may("temperature", number()), may("top_p", number()),
                may("top_k", integer(-1, Integer.MAX_VALUE)), may("stream", bool())));
        MessagesReader.HARMLESS.forEach(name -> all.add(may(name, any().described("changes nothing"))));
        MessagesReader.UNSUPPORTED.forEach(name -> all.add(may(name, any().described(UNSUPPORTED))));
        return post("/v1/messages", "Continue a conversation, in Anthropic's form")
                .taking(all.toArray(Field[]::new)).answering(anyOf(ref("Message"), ref("MessageError")))
                .or("text/event-stream");
    }

    /// The fields of both.
    ///
    /// @param leastTokens of a limit
    private static List<Field> completion(int leastTokens) {
        var all = new ArrayList<Field>(List.of(must("model", string()), may("n", integer(1, 1024)),
                may("max_tokens", integer(leastTokens, Integer.MAX_VALUE)), may("seed", integer()),
                may("stop", anyOf(string(), array(string()))), may("temperature", number()),
                may("top_p", number()), may("top_k", integer(-1, Integer.MAX_VALUE)), may("stream", bool()),
                may("stream_options", object(may("include_usage", bool()),
                        may("include_obfuscation", bool())))));
        OpenAiReader.HARMLESS.forEach(name -> all.add(may(name, any().described("changes nothing"))));
        OpenAiReader.UNSUPPORTED.forEach(name -> all.add(may(name, any().described(UNSUPPORTED))));
        return all;
    }

    private static Field[] sums(Field... fields) {
        var all = new ArrayList<Field>(List.of(fields));
        for (String name : List.of("tokens_trained", "tokens_evaluated", "tokens_prefilled", "tokens_sampled",
                "sampling_requests", "stored_bytes")) all.add(must(name, integer()));
        all.add(must("device_seconds", number()));
        return all.toArray(Field[]::new);
    }

    private static void records(List<ApiOperation> all) {
        Schema line = object(sums(nullable("training_run_id", string()), must("base_model", string()),
                nullable("project_id", string()), nullable("session_id", string())));
        Schema owner = string().described("another account, for operators");
        all.add(get("usage", "What the account's runs have used").asking("owner", owner).asking("format",
                oneOf("json", "csv")).asking("project_id", string()).asking("base_model", string())
                .asking("training_run_id", string()).answering(object(sums(must("owner", string()),
                        must("runs", array(line)), must("base_models", array(line))))).or("text/csv"));
        all.add(get("audit", "Who did what, newest first").asking("event_type", oneOf("all", "checkpoints"))
                .asking("day", string().described("like 2026-01-31")).asking("owner", owner).answering(object(
                must("entries", array(object(must("timestamp", time()), must("event", string()),
                        nullable("model_id", string()), nullable("tinker_path", string()),
                        nullable("key_id", string())))))));
        Schema info = anyOf(object(must("type", oneOf("training", "sampling_sample")),
                must("token_count", integer())), object(must("type", oneOf("checkpoint")),
                must("count", integer())), object(must("type", oneOf("storage")),
                must("gigabyte_hours", number())), object(must("type", oneOf("sampling_prefill")),
                must("cached", bool()), must("token_count", integer())));
        all.add(get("billing/usage/checkpoints/current", "The checkpoints that there are now, by project")
                .asking("project_id", string()).asking("owner", owner).answering(object(
                        nullable("effective_rate_usd_per_gigabyte_month", number()), must("data", array(
                        object(nullable("project_id", string()), nullable("org_user_urn", string()),
                                nullable("user_email", string()), must("user_name", string()),
                                must("checkpoint_count", integer()), must("size_bytes", integer()),
                                must("size_gigabytes", number()),
                                nullable("estimated_monthly_cost_usd", number())))))));
        all.add(get("billing/usage/events", "Usage by the hour").asking("starting_on", time())
                .asking("ending_before", time()).asking("owner", owner).answering(object(must("data", array(
                object(must("bucket_start", time()), must("bucket_end", time()), must("base_model", string()),
                        must("user_id", string()), must("user_name", string()),
                        nullable("session_id", string()), nullable("project_id", string()),
                        must("event_info", info)))), must("sessions", map(map(map(any())))))));
    }
}
