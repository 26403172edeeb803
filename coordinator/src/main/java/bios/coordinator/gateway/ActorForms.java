package bios.coordinator.gateway;

import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.checkpoint.CheckpointPath;
import bios.protocol.client.Request;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Datum;
import bios.protocol.run.Operation;
import bios.protocol.run.TensorData;
import bios.protocol.sampling.SamplingParams;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.stream.IntStream;

/// Brings the requests of the actor protocol into the form that the same request has over HTTP, so that both
/// are validated and carried out by the same code. Arrays stay packed, as [Json.Packed].
final class ActorForms {
    private final JsonReader reader;

    /// @param reader parses the user's metadata
    ActorForms(JsonReader reader) {
        this.reader = reader;
    }

    /// A request to an endpoint.
    ///
    /// @param pattern of the endpoint
    record Form(String method, String pattern, List<String> pathParameters, Map<String, String> query,
            Optional<Json> body) {
        static Form post(String pattern, Object... namesAndValues) {
            return new Form("POST", pattern, List.of(), Map.of(), Optional.of(object(namesAndValues)));
        }

        static Form get(String pattern, List<String> pathParameters, Map<String, String> query) {
            return new Form("GET", pattern, pathParameters, query, Optional.empty());
        }
    }

    Form of(Request request) {
        return switch (request) {
            case Request.OpenSession(var session, var tags, var metadata, var client) ->
                    Form.post("create_session", "session_id", session, "tags", tags, "user_metadata",
                            json(metadata), "sdk_version", client);
            case Request.KeepSession(var session) -> Form.post("session_heartbeat", "session_id", session);
            case Request.ListModels _ -> Form.get("get_server_capabilities", List.of(), Map.of());
            case Request.Tokenize(var model, var text, var special) -> Form.post("tokenize",
                    "base_model", model, "text", text, "add_special_tokens", special);
            case Request.Detokenize(var model, var tokens, var skip) -> Form.post("detokenize",
                    "base_model", model, "tokens", packed(tokens), "skip_special_tokens", skip);
            case Request.CreateRun(var session, long number, var model, var adapter, var metadata) ->
                    Form.post("create_model", "session_id", session, "model_seq_id", number, "base_model",
                            model, "lora_config", adapter.map(ActorForms::adapter), "user_metadata",
                            json(metadata));
            case Request.CreateRunFrom(var session, long number, var path, var metadata) ->
                    Form.post("load_training_client", "session_id", session, "model_seq_id", number, "path",
                            path, "user_metadata", json(metadata));
            case Request.Submit(var run, long seq, var operation) -> operation(run, seq, operation);
            case Request.Snapshot(var run, long seq, long sampler) -> Form.post("save_weights_for_sampler",
                    "model_id", run, "seq_id", seq, "sampling_session_seq_id", sampler);
            case Request.Retrieve(var id) -> Form.post("retrieve_future", "request_id", id);
            case Request.OpenSampler(var session, long number, var model, var path) ->
                    Form.post("create_sampling_session", "session_id", session, "sampling_session_seq_id",
                            number, "base_model", model, "model_path", path);
            case Request.Sample sample -> sample(sample);
            case Request.Unload(var run) -> Form.post("unload_model", "model_id", run);
            case Request.ListRuns _, Request.DescribeRun _, Request.ListCheckpoints _,
                    Request.DeleteCheckpoint _, Request.SetExpiry _, Request.Publish _, Request.History _,
                    Request.Metrics _, Request.TryAgain _, Request.GiveUp _, Request.Usage _,
                    Request.HourlyUsage _ -> aboutRuns(request);
        };
    }

    private static Form aboutRuns(Request request) {
        return switch (request) {
            case Request.ListRuns(int offset, int limit, var filter) ->
                    Form.get("training_runs", List.of(), page(offset, limit, filter));
            case Request.DescribeRun(var run) -> Form.get("training_runs/*", List.of(run), Map.of());
            case Request.ListCheckpoints(var run, int offset, int limit, var filter) -> run
                    .map(id -> Form.get("training_runs/*/checkpoints", List.of(id), Map.of()))
                    .orElseGet(() -> Form.get("checkpoints", List.of(), page(offset, limit, filter)));
            case Request.DeleteCheckpoint(var path) -> new Form("DELETE", "training_runs/*/checkpoints/*/*",
                    segments(path), Map.of(), Optional.empty());
            case Request.SetExpiry(var path, var ttl) -> new Form("PUT",
                    "training_runs/*/checkpoints/*/*/ttl", segments(path), Map.of(),
                    Optional.of(object("ttl_seconds", ttl)));
            case Request.Publish(var path, boolean published) -> new Form(published ? "POST" : "DELETE",
                    "training_runs/*/checkpoints/*/*/publish", segments(path), Map.of(), Optional.empty());
            case Request.History(var run, int limit, var after) -> Form.get("training_runs/*/history",
                    List.of(run), query("limit", Optional.of(limit), "after", after));
            case Request.Metrics(var run, int limit, var after) -> Form.get("training_runs/*/metrics",
                    List.of(run), query("limit", Optional.of(limit), "after", after));
            case Request.Usage(var owner, var filter) -> {
                Map<String, String> query = query("owner", owner);
                filter.forEach(query::putIfAbsent);
                query.remove("format"); // of the answer over HTTP
                yield Form.get("usage", List.of(), query);
            }
            case Request.HourlyUsage(var owner, var from, var to) -> Form.get("billing/usage/events",
                    List.of(), query("owner", owner, "starting_on", from.map(ResponseBodies::time),
                            "ending_before", to.map(ResponseBodies::time)));
            case Request.TryAgain(var run, var seq) -> new Form("POST", "training_runs/*/retry",
                    List.of(run), Map.of(), Optional.of(object("seq_id", seq)));
            case Request.GiveUp(var run, var seq) -> new Form("POST", "training_runs/*/give_up",
                    List.of(run), Map.of(), Optional.of(object("seq_id", seq)));
            case Request other -> throw new IllegalStateException("not about runs: " + other);
        };
    }

    private static Map<String, String> page(int offset, int limit, Map<String, String> filter) {
        Map<String, String> query = query("offset", Optional.of(offset), "limit", Optional.of(limit));
        filter.forEach(query::putIfAbsent);
        return query;
    }

    /// A query of names and values; an empty [Optional] is left out.
    private static Map<String, String> query(Object... namesAndValues) {
        var query = new HashMap<String, String>();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            String name = (String) namesAndValues[i];
            ((Optional<?>) namesAndValues[i + 1]).ifPresent(value -> query.put(name, value.toString()));
        }
        return query;
    }

    private static List<String> segments(String path) {
        CheckpointPath parsed = Fields.reportAt(FieldPath.BODY.field("path"), () ->
                CheckpointPath.parse(path));
        return List.of(parsed.run().value(), parsed.kind().orElse(CheckpointKind.TRAINING).segment(),
                parsed.name().value());
    }

    private Form operation(String run, long seq, Operation operation) {
        return switch (operation) {
            case Operation.ForwardBackward f -> {
                Json input = object("loss_fn", f.loss().wireName(), "loss_fn_config", f.settings(), "data",
                        new Json.Arr(f.data().stream().map(ActorForms::datum).toList()));
                yield f.forwardOnly()
                        ? Form.post("forward", "model_id", run, "seq_id", seq, "forward_input", input)
                        : Form.post("forward_backward", "model_id", run, "seq_id", seq,
                                "forward_backward_input", input);
            }
            case Operation.OptimStep(var params) -> Form.post("optim_step", "model_id", run, "seq_id", seq,
                    "adam_params", params.map(ActorForms::adam));
            case Operation.SaveState(var name, var metadata, var ttl) -> Form.post("save_weights",
                    "model_id", run, "seq_id", seq, "path", name.value(), "metadata", json(metadata),
                    "ttl_seconds", ttl);
            // A snapshot is another request, so a save without a name is refused like one over HTTP.
            case Operation.SaveSamplerWeights(var name, var ttl, _) -> Form.post("save_weights_for_sampler",
                    "model_id", run, "seq_id", seq, "path", name.map(CheckpointName::value), "ttl_seconds",
                    ttl);
            case Operation.LoadState(var path, var optimizer) -> Form.post("load_weights", "model_id", run,
                    "seq_id", seq, "path", path.biosUri(), "optimizer", optimizer);
            case Operation.LoadUpload _ -> throw new ApiException(ErrorCode.UNSUPPORTED,
                    "adapters are uploaded over HTTP");
        };
    }

    private static Json adapter(Request.Adapter adapter) {
        return object("rank", (long) adapter.rank(), "alpha", adapter.alpha(), "seed", adapter.seed(),
                "target_modules", adapter.targets().isEmpty() ? Optional.empty() : adapter.targets());
    }

    private static Json adam(AdamParams p) {
        return object("learning_rate", p.learningRate(), "beta1", p.beta1(), "beta2", p.beta2(),
                "eps", p.eps(), "weight_decay", p.weightDecay(), "grad_clip_norm", p.gradClipNorm());
    }

    private static Json datum(Datum datum) {
        Map<String, Json> inputs = new LinkedHashMap<>();
        datum.lossInputs().forEach((name, tensor) -> inputs.put(name, tensor(tensor)));
        return object("model_input", prompt(datum.tokens()), "loss_fn_inputs", new Json.Obj(inputs));
    }

    private static Json prompt(int[] tokens) {
        return object("chunks", new Json.Arr(List.of(object("tokens", packed(tokens)))));
    }

    private static Json tensor(TensorData tensor) {
        return object("dtype", tensor.dtype().name().toLowerCase(Locale.ROOT), "shape",
                new Json.Longs(Arrays.stream(tensor.shape()).asLongStream().toArray()), "data",
                new Json.Packed(tensor.data(), 0, tensor.data().length));
    }

    private static Json packed(int[] tokens) {
        ByteBuffer bytes = ByteBuffer.allocate(tokens.length * Integer.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asIntBuffer().put(tokens);
        return new Json.Packed(bytes.array(), 0, bytes.capacity());
    }

    private static Form sample(Request.Sample s) {
        SamplingParams p = s.params();
        Object stop = !p.stopStrings().isEmpty() && !p.stopTokens().isEmpty()
                ? IntStream.range(0, p.stopStrings().size() + p.stopTokens().size()).mapToObj(i ->
                        i < p.stopStrings().size() ? p.stopStrings().get(i)
                                : (Object) p.stopTokens().get(i - p.stopStrings().size())).toList()
                : !p.stopStrings().isEmpty() ? p.stopStrings()
                : !p.stopTokens().isEmpty() ? p.stopTokens() : Optional.empty();
        return Form.post("asample", "sampling_session_id", s.sampler(), "seq_id", s.seq(), "prompt",
                prompt(s.prompt()), "sampling_params", object("max_tokens", p.maxTokens(), "seed", p.seed(),
                        "stop", stop, "temperature", p.temperature(), "top_k", (long) p.topK(), "top_p",
                        p.topP()), "num_samples", (long) s.samples(), "prompt_logprobs", s.promptLogprobs(),
                "topk_prompt_logprobs", (long) s.topkPromptLogprobs());
    }

    /// A JSON object that the client sends as text.
    private Json json(String text) {
        return reader.readFree(text.getBytes(StandardCharsets.UTF_8), _ -> { });
    }

    /// An object of names and values; an empty [Optional] is left out.
    private static Json object(Object... namesAndValues) {
        Map<String, Json> fields = new LinkedHashMap<>();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            Object value = namesAndValues[i + 1] instanceof Optional<?> given ? given.orElse(null)
                    : namesAndValues[i + 1];
            if (value != null) fields.put((String) namesAndValues[i], value(value));
        }
        return new Json.Obj(fields);
    }

    private static Json value(Object value) {
        return switch (value) {
            case Json json -> json;
            case String text -> new Json.Str(text);
            case Boolean bool -> new Json.Bool(bool);
            case Number number -> new Json.Num(number.toString());
            case List<?> items -> new Json.Arr(items.stream().map(ActorForms::value).toList());
            case Map<?, ?> entries -> {
                Map<String, Json> fields = new LinkedHashMap<>();
                entries.forEach((name, field) -> fields.put((String) name, value(field)));
                yield new Json.Obj(fields);
            }
            case Object other -> throw new IllegalStateException("no JSON value: " + other.getClass());
        };
    }
}
