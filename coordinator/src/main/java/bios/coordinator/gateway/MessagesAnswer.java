package bios.coordinator.gateway;

import bios.protocol.sampling.SampleResult.StopReason;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.apache.pekko.NotUsed;
import org.apache.pekko.japi.Pair;
import org.apache.pekko.stream.javadsl.Source;
import org.apache.pekko.util.ByteString;

/// The answer to a client of Anthropic's: whole, or as a stream of named events.
///
/// @param id of the answer
/// @param completion of the one sequence
record MessagesAnswer(GatewayServices services, OpenAiRequest request, String id, Completion completion) {
    private static final String TYPE = "type";

    /// The error of a refused or failed request.
    static Map<String, Object> problem(ApiException error) {
        String type = switch (error.code().status()) {
            case 401 -> "authentication_error";
            case 403 -> "permission_error";
            case 404 -> "not_found_error";
            case 413 -> "request_too_large";
            case 429 -> "rate_limit_error";
            case 503 -> "overloaded_error";
            default -> error.code().status() < 500 ? "invalid_request_error" : "api_error";
        };
        String message = error.field().filter(field -> !error.getMessage().contains(field))
                .map(field -> field + ": " + error.getMessage()).orElse(error.getMessage());
        return ApiResponse.object(TYPE, "error", "error", ApiResponse.object(TYPE, type, "message", message,
                "code", error.wireCode()));
    }

    private CompletionText text() {
        return completion.texts().getFirst();
    }

    private Map<String, Object> usage(long drawn) {
        return ApiResponse.object("input_tokens", completion.task().prompt().length, "output_tokens", drawn);
    }

    private Map<String, Object> message(List<Object> content, Optional<StopReason> reason, long drawn) {
        return ApiResponse.object("id", id, TYPE, "message", "role", "assistant", "model", request.model(),
                "content", content, "stop_reason", reason.map(this::word), "stop_sequence",
                reason.flatMap(_ -> text().stopString()), "usage", usage(drawn));
    }

    private String word(StopReason reason) {
        return reason == StopReason.LENGTH ? "max_tokens"
                : text().stopString().isPresent() ? "stop_sequence" : "end_turn";
    }

    private static Map<String, Object> block(String text) {
        return ApiResponse.object(TYPE, "text", "text", text);
    }

    /// The whole answer.
    CompletionStage<ApiResponse> whole() {
        return OpenAiAnswer.whole(services, List.of(completion), () -> {
            CompletionText.Delta all = text().next();
            return message(List.of(block(all.text())), all.finishReason(), completion.drawn());
        }, MessagesAnswer::problem);
    }

    /// The answer as events. A failure is the last event.
    ApiResponse events() {
        Source<ByteString, NotUsed> begin = Source.single(event("message_start", "message",
                message(List.of(), Optional.empty(), 0)).concat(event("content_block_start", "index", 0,
                "content_block", block(""))));
        Source<ByteString, NotUsed> parts = Source.unfoldAsync(false, done -> done
                ? CompletableFuture.completedStage(Optional.<Pair<Boolean, ByteString>>empty())
                : completion.step().thenApply(state -> Optional.of(
                        Pair.create(completion.ended(), part(state)))));
        return OpenAiAnswer.stream(List.of(completion), begin.concat(parts), error ->
                event("error", "error", problem(error).get("error")));
    }

    /// What a step has brought, and the end behind the last of it.
    private ByteString part(String state) {
        if (!state.isEmpty()) return event("ping");
        CompletionText.Delta delta = text().next();
        ByteString out = delta.text().isEmpty() ? ByteString.emptyByteString()
                : event("content_block_delta", "index", 0, "delta",
                        ApiResponse.object(TYPE, "text_delta", "text", delta.text()));
        return delta.finishReason().map(reason -> out.concat(event("content_block_stop", "index", 0))
                .concat(event("message_delta", "delta", ApiResponse.object("stop_reason", word(reason),
                        "stop_sequence", text().stopString()), "usage", usage(completion.drawn())))
                .concat(event("message_stop"))).orElse(out);
    }

    private static ByteString event(String name, Object... fields) {
        Map<String, Object> body = ApiResponse.object(TYPE, name);
        for (int i = 0; i < fields.length; i += 2) body.put((String) fields[i], fields[i + 1]);
        return ByteString.fromArray(("event: " + name + "\ndata: ").getBytes(StandardCharsets.UTF_8))
                .concat(ByteString.fromArray(JsonWriter.write(body))).concat(ByteString.fromString("\n\n"));
    }
}
