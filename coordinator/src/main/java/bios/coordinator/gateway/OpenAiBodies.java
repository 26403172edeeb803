package bios.coordinator.gateway;

import bios.protocol.sampling.SampleResult.StopReason;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/// The bodies of answers to OpenAI's clients.
///
/// @param id of the answer
/// @param created epoch seconds
/// @param fingerprint of the base model
record OpenAiBodies(OpenAiRequest request, String id, long created, Optional<String> fingerprint) {
    /// The error of a refused or failed request.
    static Map<String, Object> problem(ApiException error) {
        String type = error.code().status() >= 500 ? "server_error"
                : error.code().status() == 429 ? "rate_limit_error" : "invalid_request_error";
        String code = switch (error.code()) {
            case NOT_FOUND, UNKNOWN_MODEL -> "model_not_found";
            case UNAUTHENTICATED -> "invalid_api_key";
            default -> error.wireCode();
        };
        return ApiResponse.object("error", ApiResponse.object("message", error.getMessage(), "type", type,
                "param", error.field(), "code", code));
    }

    /// A model of the list.
    static Map<String, Object> model(String id, long created, String owner) {
        return ApiResponse.object("id", id, "object", "model", "created", created, "owned_by", owner);
    }

    /// The whole answer; its choices are made when they are written.
    Map<String, Object> whole(Stream<Map<String, Object>> choices, Map<String, Object> usage) {
        Map<String, Object> body = head(request.chat() ? "chat.completion" : "text_completion");
        body.put("choices", choices);
        body.put("usage", usage);
        return body;
    }

    /// One event of a stream.
    Map<String, Object> event(List<Map<String, Object>> choices) {
        Map<String, Object> body = head(request.chat() ? "chat.completion.chunk" : "text_completion");
        body.put("choices", choices);
        if (request.includeUsage()) body.put("usage", null);
        return body;
    }

    /// The event that ends a stream with the numbers of tokens.
    Map<String, Object> usageEvent(Map<String, Object> usage) {
        Map<String, Object> body = event(List.of());
        body.put("usage", usage);
        return body;
    }

    private Map<String, Object> head(String object) {
        return ApiResponse.object("id", id, "object", object, "created", created, "model", request.model(),
                "system_fingerprint", fingerprint);
    }

    /// The numbers of tokens.
    static Map<String, Object> usage(long prompt, long drawn) {
        return ApiResponse.object("prompt_tokens", prompt, "completion_tokens", drawn, "total_tokens",
                prompt + drawn);
    }

    /// One choice of the whole answer.
    ///
    /// @param echoed text of the prompt, where it is asked for
    Map<String, Object> choice(int index, String echoed, CompletionText.Delta delta) {
        Map<String, Object> choice = ApiResponse.object("index", index);
        if (request.chat()) choice.put("message", ApiResponse.object("role", "assistant", "content",
                delta.text(), "refusal", null));
        else choice.put("text", echoed + delta.text());
        return finish(choice, delta, 0);
    }

    /// The first event of a choice in a chat, before any text.
    Map<String, Object> role(int index) {
        Map<String, Object> choice = ApiResponse.object("index", index, "delta",
                ApiResponse.object("role", "assistant", "content", ""));
        return finish(choice, new CompletionText.Delta("", List.of(), Optional.empty()), 0);
    }

    /// A part of a choice in a stream.
    ///
    /// @param offset characters of the text before it
    Map<String, Object> part(int index, String echoed, CompletionText.Delta delta, int offset) {
        Map<String, Object> choice = ApiResponse.object("index", index);
        boolean empty = delta.text().isEmpty() && delta.pieces().isEmpty();
        if (!request.chat()) choice.put("text", echoed + delta.text());
        else choice.put("delta", empty ? Map.of() : ApiResponse.object("content", delta.text()));
        return finish(choice, delta, offset);
    }

    private Map<String, Object> finish(Map<String, Object> choice, CompletionText.Delta delta, int offset) {
        boolean asked = request.logprobs() && !(delta.pieces().isEmpty() && delta.text().isEmpty());
        choice.put("logprobs", !asked ? null : request.chat() ? chatLogprobs(delta)
                : completionLogprobs(delta, offset));
        choice.put("finish_reason", delta.finishReason().map(reason ->
                reason == StopReason.STOP ? "stop" : "length").orElse(null));
        return choice;
    }

    private static Map<String, Object> chatLogprobs(CompletionText.Delta delta) {
        var content = new ArrayList<Map<String, Object>>();
        for (CompletionText.Piece piece : delta.pieces()) content.add(ApiResponse.object("token",
                piece.text(), "logprob", piece.logprob(), "bytes", bytes(piece.text()), "top_logprobs",
                List.of()));
        return ApiResponse.object("content", content, "refusal", null);
    }

    private static List<Integer> bytes(String text) {
        var bytes = new ArrayList<Integer>();
        for (byte one : text.getBytes(StandardCharsets.UTF_8)) bytes.add(one & 0xff);
        return bytes;
    }

    private Map<String, Object> completionLogprobs(CompletionText.Delta delta, int offset) {
        var tokens = new ArrayList<String>();
        var logprobs = new ArrayList<Float>();
        var tops = new ArrayList<Map<String, Float>>();
        var offsets = new ArrayList<Integer>();
        int at = offset;
        for (CompletionText.Piece piece : delta.pieces()) {
            tokens.add(piece.text());
            logprobs.add(piece.logprob());
            tops.add(Map.of(piece.text(), piece.logprob()));
            offsets.add(at);
            at += piece.text().codePointCount(0, piece.text().length());
        }
        return ApiResponse.object("tokens", tokens, "token_logprobs", logprobs,
                "top_logprobs", request.tops() ? tops : null, "text_offset", offsets);
    }
}
