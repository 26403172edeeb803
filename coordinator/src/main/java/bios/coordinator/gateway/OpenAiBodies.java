package bios.coordinator.gateway;

import bios.protocol.sampling.SampleResult.StopReason;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
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

    /// New text of a choice.
    ///
    /// @param echo text of the prompt, where the choice begins and it is asked for
    /// @param prompt the tokens of that, with log-probabilities
    /// @param delta what follows
    /// @param names of tokens that are not in the text
    record Part(String echo, List<CompletionText.Piece> prompt, CompletionText.Delta delta,
            TokenNames names) {
        boolean isEmpty() {
            return echo.isEmpty() && delta.isEmpty();
        }

        String text() {
            return echo + delta.text();
        }

        /// Characters of all its tokens.
        int characters() {
            return Stream.concat(prompt.stream(), delta.pieces().stream()).mapToInt(p ->
                    OpenAiBodies.characters(p.text())).sum();
        }
    }

    /// One choice of the whole answer.
    Map<String, Object> choice(int index, Part part) {
        Map<String, Object> choice = ApiResponse.object("index", index);
        if (request.chat()) choice.put("message", ApiResponse.object("role", "assistant", "content",
                part.text(), "refusal", null));
        else choice.put("text", part.text());
        return finish(choice, part, pieces(part), 0, request.logprobs());
    }

    /// The first event of a choice in a chat, before any text.
    Map<String, Object> role(int index) {
        Map<String, Object> choice = ApiResponse.object("index", index, "delta",
                ApiResponse.object("role", "assistant", "content", ""));
        choice.put("logprobs", null);
        choice.put("finish_reason", null);
        return choice;
    }

    /// A part of a choice in a stream.
    ///
    /// @param offset characters of the text before it
    Map<String, Object> part(int index, Part part, int offset) {
        Map<String, Object> choice = ApiResponse.object("index", index);
        boolean empty = part.text().isEmpty() && part.delta().pieces().isEmpty();
        if (!request.chat()) choice.put("text", part.text());
        else choice.put("delta", empty ? Map.of() : ApiResponse.object("content", part.text()));
        List<CompletionText.Piece> pieces = pieces(part);
        return finish(choice, part, pieces, offset, request.logprobs() && !pieces.isEmpty());
    }

    private Map<String, Object> finish(Map<String, Object> choice, Part part,
            List<CompletionText.Piece> pieces, int offset, boolean logprobs) {
        choice.put("logprobs", !logprobs ? null : request.chat() ? chatLogprobs(pieces, part.names())
                : completionLogprobs(pieces, names(pieces, part), part.names(), offset));
        choice.put("finish_reason", part.delta().finishReason().map(reason ->
                reason == StopReason.STOP ? "stop" : "length").orElse(null));
        return choice;
    }

    /// The tokens whose log-probabilities a part has. The tokens that end a completion are among them, so
    /// that what was drawn after an echoed prompt can be told from it.
    private List<CompletionText.Piece> pieces(Part part) {
        CompletionText.Delta delta = part.delta();
        if (request.chat()) return delta.pieces();
        return Stream.of(part.prompt(), delta.pieces(), delta.ending()).flatMap(List::stream).toList();
    }

    private static Map<String, Object> chatLogprobs(List<CompletionText.Piece> pieces, TokenNames names) {
        var content = new ArrayList<Map<String, Object>>();
        for (CompletionText.Piece piece : pieces) {
            String name = name(piece, names);
            Map<String, Object> token = token(name, piece.logprob(), true);
            token.put("bytes", bytes(piece.text()));
            token.put("top_logprobs", piece.top().stream().map(top -> top.token() == piece.token()
                    ? token(name, top.logprob(), true)
                    : token(names.of(top.token()), top.logprob(), names.isText(top.token()))).toList());
            content.add(token);
        }
        return ApiResponse.object("content", content, "refusal", null);
    }

    /// What a token in an answer is called: a special token adds nothing to the text, and has a name.
    private static String name(CompletionText.Piece piece, TokenNames names) {
        return piece.text().isEmpty() && names.isText(piece.token()) ? names.of(piece.token()) : piece.text();
    }

    /// The names of the tokens of a completion. A stop token always has one.
    private static List<String> names(List<CompletionText.Piece> pieces, Part part) {
        var names = new ArrayList<String>();
        for (CompletionText.Piece piece : pieces) names.add(name(piece, part.names()));
        if (!part.delta().ending().isEmpty() && names.getLast().isEmpty())
            names.set(names.size() - 1, part.names().of(pieces.getLast().token()));
        return names;
    }

    /// @param isText whether `token` is text, which has bytes
    private static Map<String, Object> token(String token, float logprob, boolean isText) {
        return ApiResponse.object("token", token, "logprob", logprob, "bytes",
                isText ? bytes(token) : null);
    }

    private static List<Integer> bytes(String text) {
        var bytes = new ArrayList<Integer>();
        for (byte one : text.getBytes(StandardCharsets.UTF_8)) bytes.add(one & 0xff);
        return bytes;
    }

    private static int characters(String text) {
        return text.codePointCount(0, text.length());
    }

    /// @param tokens the names of the pieces
    private Map<String, Object> completionLogprobs(List<CompletionText.Piece> pieces, List<String> tokens,
            TokenNames names, int offset) {
        var logprobs = new ArrayList<Float>();
        var tops = new ArrayList<Map<String, Float>>();
        var offsets = new ArrayList<Integer>();
        int at = offset;
        for (int i = 0; i < tokens.size(); i++) {
            CompletionText.Piece piece = pieces.get(i);
            logprobs.add(piece.logprob());
            tops.add(Float.isNaN(piece.logprob()) ? null : top(tokens.get(i), piece, names));
            offsets.add(at);
            at += characters(piece.text());
        }
        return ApiResponse.object("tokens", tokens, "token_logprobs", logprobs,
                "top_logprobs", request.tops() > 0 ? tops : null, "text_offset", offsets);
    }

    /// The most likely tokens at the place of one, and itself. Each has a name of its own.
    private static Map<String, Float> top(String name, CompletionText.Piece piece, TokenNames names) {
        var top = new LinkedHashMap<String, Float>();
        for (TokenLogprob each : piece.top()) {
            boolean taken = names.of(each.token()).equals(name) || top.containsKey(names.of(each.token()));
            top.put(each.token() == piece.token() ? name
                    : taken ? TokenNames.number(each.token()) : names.of(each.token()), each.logprob());
        }
        top.putIfAbsent(name, piece.logprob());
        return top;
    }
}
