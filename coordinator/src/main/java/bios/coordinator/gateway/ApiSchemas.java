package bios.coordinator.gateway;

import static bios.coordinator.gateway.Schema.*;

import bios.protocol.model.TargetModule;
import bios.protocol.run.HistoryEntry;
import bios.protocol.run.LossFunction;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/// The objects of the protocol that several calls share, by their names in the document.
final class ApiSchemas {
    private ApiSchemas() {}

    static Map<String, Schema> all() {
        var all = new LinkedHashMap<String, Schema>();
        inputs(all);
        passes(all);
        listings(all);
        futures(all);
        openAi(all);
        return all;
    }

    private static void inputs(Map<String, Schema> all) {
        all.put("Chunk", object(may("type", oneOf("encoded_text")), may("tokens", array(integer())),
                may("tokens_base64", base64().described("int32, little-endian"))));
        all.put("ModelInput", object(may("chunks", array(ref("Chunk"))),
                may("tokens_base64", base64().described("int32, little-endian"))));
        all.put("Tensor", object(must("dtype", oneOf("float32", "int64")), may("shape", array(integer())),
                may("data", array(number())), may("data_base64", base64()),
                may("sparse_crow_indices", array(integer())), may("sparse_col_indices", array(integer()))));
        all.put("Datum", object(must("model_input", ref("ModelInput")),
                must("loss_fn_inputs", map(ref("Tensor")))));
        all.put("Batch", object(must("data", array(ref("Datum"))), must("loss_fn",
                oneOf(Arrays.stream(LossFunction.values()).map(LossFunction::wireName)
                        .toArray(String[]::new))), may("loss_fn_config", map(number()))));
        all.put("LoraConfig", object(may("rank", integer(1, 256)), may("alpha", number()),
                may("seed", integer()), may("train_attn", bool()), may("train_mlp", bool()),
                may("train_unembed", bool()), may("target_modules", array(oneOf(targets())))));
        all.put("AdamParams", object(may("learning_rate", number()), may("beta1", number()),
                may("beta2", number()), may("eps", number()), may("weight_decay", number()),
                may("grad_clip_norm", number())));
        all.put("SamplingParams", object(may("max_tokens", integer(1, Integer.MAX_VALUE)),
                may("seed", integer()), may("stop", anyOf(string(), array(string()), array(integer()))),
                may("temperature", number()), may("top_k", integer(-1, Integer.MAX_VALUE)),
                may("top_p", number())));
    }

    private static String[] targets() {
        return Arrays.stream(TargetModule.values()).map(TargetModule::peftName).toArray(String[]::new);
    }

    private static void passes(Map<String, Schema> all) {
        all.put("Future", object(must("request_id", string()), nullable("model_id", string()),
                sometimes("sample_sequence_ids", array(string()))));
        all.put("Logprobs", object(must("dtype", oneOf("float32")), must("shape", array(integer())),
                sometimes("data", array(number())), sometimes("data_base64", base64())));
        all.put("PassResult", object(must("type", oneOf("forward", "forward_backward")),
                must("loss_fn_output_type", string()),
                must("loss_fn_outputs", array(object(must("logprobs", ref("Logprobs"))))),
                must("metrics", map(number()))));
        all.put("StepResult", object(must("type", oneOf("optim_step")), must("metrics", map(number())),
                must("step", integer())));
        all.put("SaveResult", object(must("type", oneOf("save_weights")), must("path", string()),
                must("metadata", map(any())), must("step", integer())));
        all.put("SamplerResult", object(must("type", oneOf("save_weights_for_sampler")),
                nullable("path", string()), nullable("sampling_session_id", string()),
                must("step", integer())));
        all.put("ExternalResult", object(must("type", oneOf("save_weights_external")),
                must("path", string()), must("size_bytes", integer()), must("step", integer())));
        all.put("LoadResult", object(must("type", oneOf("load_weights", "create_model")),
                must("model_id", string()), must("path", string()), must("step", integer())));
        all.put("ModelResult", object(must("type", oneOf("create_model", "unload_model")),
                must("model_id", string())));
        all.put("SampleResult", object(must("type", oneOf("sample")), must("sequences", array(object(
                must("tokens", array(integer())), must("logprobs", array(number().orNull())),
                must("stop_reason", oneOf("stop", "length")),
                sometimes("model_logprobs", array(number().orNull())),
                sometimes("topk_logprobs", array(array(array(number().orNull())).orNull())),
                must("sequence_id", string())))),
                nullable("prompt_logprobs", array(number().orNull())),
                nullable("topk_prompt_logprobs", array(array(array(number().orNull())).orNull()))));
    }

    private static void listings(Map<String, Schema> all) {
        all.put("Checkpoint", object(must("checkpoint_id", string()),
                must("checkpoint_type", oneOf("training", "sampler")), must("time", time()),
                must("path", string()), must("tinker_path", string()), must("size_bytes", integer()),
                must("public", bool()), nullable("expires_at", time()), must("step", integer()),
                must("base_model", string()), must("metadata", map(any()))));
        all.put("TrainingRun", object(must("training_run_id", string()), must("base_model", string()),
                must("model_owner", string()), must("is_lora", bool()), must("lora_rank", integer()),
                must("corrupted", bool()), must("last_request_time", time()),
                nullable("last_checkpoint", ref("Checkpoint")),
                nullable("last_sampler_checkpoint", ref("Checkpoint")),
                must("user_metadata", map(string())), must("lora_alpha", number()),
                must("target_modules", array(string())), must("step", integer()),
                nullable("project_id", string()), nullable("parent_path", string()),
                sometimes("waiting_operation", ref("WaitingOperation").orNull())));
        all.put("WaitingOperation", object(must("seq_id", integer()), must("operation", string()),
                must("set_aside", bool()), must("code", string()), must("message", string())));
        all.put("Cursor", object(must("offset", integer()), must("limit", integer()),
                must("total_count", integer())));
        all.put("SearchOwner", object(may("type", oneOf("own", "accessible", "user")),
                may("owner_urns", array(string()).described("accounts, for the type user"))));
        all.put("SearchCursor", object(must("last_created_at", time()),
                must("last_checkpoint_uuid", string())));
        all.put("HistoryEntry", object(must("time", time()), nullable("node", string()),
                must("kind", oneOf(Arrays.stream(HistoryEntry.Kind.values()).map(kind ->
                        kind.name().toLowerCase(Locale.ROOT)).toArray(String[]::new))),
                nullable("position", integer()), nullable("seq_id", integer()),
                must("detail", map(any())), nullable("number", integer())));
        all.put("OperationMetrics", object(must("number", integer()), must("seq_id", integer()),
                must("operation", string()), must("step", integer()), must("metrics", map(number())),
                nullable("code", string()), must("time", time())));
        all.put("Timing", object(must("seq_id", integer()), must("operation", string()),
                must("journal_ms", number()), must("queue_ms", number()), must("engine_ms", number())));
    }

    private static void openAi(Map<String, Schema> all) {
        all.put("OpenAiModel", object(must("id", string()), must("object", oneOf("model")),
                must("created", integer()), must("owned_by", string())));
        all.put("MessageContent", anyOf(string(), array(object(must("type", oneOf("text")),
                must("text", string())))));
        all.put("ChatMessage", object(must("role", oneOf("system", "user", "assistant", "developer")),
                must("content", ref("MessageContent")), may("name", string()),
                may("reasoning_content", string())));
        all.put("Message", object(must("id", string()), must("type", oneOf("message")),
                must("role", oneOf("assistant")), must("model", string()), must("content",
                        array(object(must("type", oneOf("text")), must("text", string())))),
                must("stop_reason", oneOf("end_turn", "max_tokens", "stop_sequence")),
                nullable("stop_sequence", string()), must("usage", object(must("input_tokens", integer()),
                        must("output_tokens", integer())))));
        all.put("MessageError", object(must("type", oneOf("error")), must("error", object(
                must("type", string()), must("message", string()), must("code", string())))));
        all.put("OpenAiUsage", object(must("prompt_tokens", integer()),
                must("completion_tokens", integer()), must("total_tokens", integer())));
        all.put("ChatCompletion", completion("chat.completion", must("message", object(must("role",
                oneOf("assistant")), must("content", string()), nullable("refusal", string()))),
                object(must("content", array(logprob(must("top_logprobs", array(logprob()))))),
                        nullable("refusal", string()))));
        all.put("TextCompletion", completion("text_completion", must("text", string()), object(
                must("tokens", array(string())), must("token_logprobs", array(number().orNull())),
                nullable("top_logprobs", array(map(number()).orNull())),
                must("text_offset", array(integer())))));
        all.put("OpenAiError", object(must("error", object(must("message", string()),
                must("type", oneOf("invalid_request_error", "rate_limit_error", "server_error")),
                nullable("param", string()), must("code", string())))));
    }

    /// A token of a chat and its log-probability.
    private static Schema logprob(Field... more) {
        var fields = new ArrayList<Field>(List.of(must("token", string()), must("logprob", number()),
                nullable("bytes", array(integer(0, 255)))));
        fields.addAll(List.of(more));
        return object(fields.toArray(Field[]::new));
    }

    private static Schema completion(String object, Field content, Schema logprobs) {
        return object(must("id", string()), must("object", oneOf(object)), must("created", integer()),
                must("model", string()), nullable("system_fingerprint", string()), must("choices",
                        array(object(must("index", integer()), content, nullable("logprobs", logprobs),
                                nullable("finish_reason", oneOf("stop", "length"))))),
                must("usage", ref("OpenAiUsage")));
    }

    private static void futures(Map<String, Schema> all) {
        all.put("Failure", object(must("error", string().described("the message")),
                must("category", oneOf("user", "server")), must("code", string())));
        all.put("TryAgain", object(must("type", oneOf("try_again")), must("request_id", string()),
                must("queue_state", oneOf("active", "paused_capacity")),
                nullable("queue_state_reason", string())));
        all.put("Error", object(must("error", string().described("a code of errors.md")),
                must("category", oneOf("user", "server")), must("message", string()),
                nullable("field", string()), must("detail", string()), must("request_id", string())));
    }
}
