package bios.coordinator.gateway;

import bios.protocol.Invalid;
import bios.protocol.sampling.SamplingParams;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Parses the requests of OpenAI's clients. A field that would change the answer and is not supported is
/// refused by its name; one that changes nothing, or has the value that it would have if it were left out, is
/// accepted.
final class OpenAiReader {
    static final List<String> HARMLESS = List.of("user", "metadata", "store", "service_tier",
            "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls");
    static final List<String> UNSUPPORTED = List.of("tools", "tool_choice", "functions",
            "function_call", "response_format", "logit_bias", "presence_penalty", "frequency_penalty",
            "modalities", "audio", "prediction", "reasoning_effort", "verbosity", "web_search_options",
            "suffix");
    private static final int MAX_STOP_CHARACTERS = 1 << 10;
    /// Most of the most likely tokens at each place. OpenAI defines 20 for chats, and 5 for completions:
    /// evaluation harnesses ask other services for more there.
    static final int MOST_TOPS = 20;
    static final int MAX_MESSAGES = 1 << 14;

    private final GatewaySettings settings;

    OpenAiReader(GatewaySettings settings) {
        this.settings = settings;
    }

    /// The body of `/v1/chat/completions`.
    OpenAiRequest chat(Fields fields) {
        List<Map<String, Object>> messages = messages(fields);
        Map<String, Object> arguments = fields.optional("chat_template_kwargs").map(json ->
                object(Fields.of(fields.at("chat_template_kwargs"), json).at(), json)).orElse(Map.of());
        boolean logprobs = fields.bool("logprobs", false);
        int tops = tops(fields, "top_logprobs").orElse(0);
        if (tops > 0 && !logprobs)
            throw fields.at("top_logprobs").invalid("is only for requests with logprobs: true");
        Optional<OpenAiRequest.MaxTokens> limit = limit(fields, "max_completion_tokens", 1)
                .or(() -> limit(fields, "max_tokens", 1));
        fields.optionalInteger("max_tokens", 1, Integer.MAX_VALUE);
        return rest(fields, new OpenAiRequest.Input.Chat(messages, arguments), limit, logprobs, tops);
    }

    /// The body of `/v1/completions`.
    OpenAiRequest completion(Fields fields) {
        boolean echo = fields.bool("echo", false);
        List<OpenAiRequest.Prompt> prompts = prompts(fields.at("prompt"), fields.required("prompt"));
        Optional<Integer> tops = tops(fields, "logprobs");
        long bestOf = fields.optionalInteger("best_of", 1, settings.maxSamples()).orElse(1L);
        if (bestOf > fields.optionalInteger("n", 1, settings.maxSamples()).orElse(1L))
            throw unsupported(fields, "best_of",
                    "more sequences than n are not drawn; leave best_of out, or give it the value of n");
        OpenAiRequest request = rest(fields, new OpenAiRequest.Input.Prompts(prompts, echo),
                limit(fields, "max_tokens", echo ? 0 : 1), tops.isPresent(), tops.orElse(0));
        if ((long) prompts.size() * request.choices() > settings.maxSamples())
            throw fields.at("prompt").invalid("with n asks for " + (long) prompts.size() * request.choices()
                    + " sequences; at most " + settings.maxSamples());
        return request;
    }

    private OpenAiRequest rest(Fields fields, OpenAiRequest.Input input,
            Optional<OpenAiRequest.MaxTokens> limit, boolean logprobs, int tops) {
        String model = fields.string("model");
        int choices = fields.optionalInteger("n", 1, settings.maxSamples()).orElse(1L).intValue();
        boolean stream = fields.bool("stream", false);
        boolean usage = fields.optionalObject("stream_options").map(options -> {
            boolean include = options.bool("include_usage", false);
            options.bool("include_obfuscation", false);
            options.requireAllRead();
            return include;
        }).orElse(false);
        if (fields.has("stream_options") && !stream)
            throw fields.at("stream_options").invalid("is only for requests with stream: true");
        SamplingParams params = params(fields);
        HARMLESS.forEach(fields::has);
        UNSUPPORTED.forEach(name -> refuse(fields, name));
        fields.requireAllRead();
        return new OpenAiRequest(model, input, choices, limit, params, stream, usage, logprobs, tops);
    }

    private Optional<Integer> tops(Fields fields, String name) {
        return fields.optionalInteger(name, 0, Math.min(MOST_TOPS, settings.maxTopkPromptLogprobs()))
                .map(Math::toIntExact);
    }

    private static Optional<OpenAiRequest.MaxTokens> limit(Fields fields, String name, int least) {
        return fields.optionalInteger(name, least, Integer.MAX_VALUE).map(limit ->
                new OpenAiRequest.MaxTokens(fields.at(name), limit.intValue()));
    }

    private static SamplingParams params(Fields fields) {
        Optional<Long> seed = fields.optionalBits("seed");
        return params(fields, "stop", fields.optional("stop").map(json -> stop(fields.at("stop"), json))
                .orElse(List.of()), seed);
    }

    /// The parameters of sampling, with stop strings that were read from the field `stopField`.
    static SamplingParams params(Fields fields, String stopField, List<String> stop, Optional<Long> seed) {
        for (String text : stop)
            if (text.length() > MAX_STOP_CHARACTERS) throw fields.at(stopField).invalid("has "
                    + text.length() + " characters; at most " + MAX_STOP_CHARACTERS);
        double temperature = fields.number("temperature", 1);
        double topP = fields.number("top_p", 1);
        int topK = fields.optionalInteger("top_k", -1, Integer.MAX_VALUE).orElse(-1L).intValue();
        try {
            return new SamplingParams(Optional.empty(), seed, stop, List.of(), temperature,
                    topK == 0 ? -1 : topK, topP);
        } catch (Invalid invalid) {
            String field = invalid.field().replace("sampling_params.", "").replace("stop", stopField);
            throw new Invalid(field, invalid.getMessage().substring(invalid.field().length() + 2));
        }
    }

    private static List<String> stop(FieldPath at, Json json) {
        var strings = new ArrayList<String>();
        if (json instanceof Json.Str(var text)) strings.add(text);
        else for (Json item : Fields.items(at, json)) {
            if (!(item instanceof Json.Str(var text)))
                throw at.item(strings.size()).invalid("is " + item.kind() + "; expected a string");
            strings.add(text);
        }
        return strings;
    }

    private static List<OpenAiRequest.Prompt> prompts(FieldPath at, Json json) {
        if (json instanceof Json.Str(var text)) return List.of(new OpenAiRequest.Prompt.Text(at, text));
        List<Json> items = json instanceof Json.Arr(var given) ? given : List.of();
        if (items.isEmpty())
            throw at.invalid("is " + (json instanceof Json.Arr ? "empty" : json.kind())
                    + "; expected a string, token ids, or an array of these");
        if (items.getFirst() instanceof Json.Num)
            return List.of(new OpenAiRequest.Prompt.Tokens(at, items));
        var prompts = new ArrayList<OpenAiRequest.Prompt>();
        for (Json item : items) {
            FieldPath place = at.item(prompts.size());
            prompts.add(switch (item) {
                case Json.Str(var text) -> new OpenAiRequest.Prompt.Text(place, text);
                case Json.Arr(var ids) -> new OpenAiRequest.Prompt.Tokens(place, ids);
                default -> throw place.invalid("is " + item.kind() + "; expected a string or token ids");
            });
        }
        return prompts;
    }

    private static List<Map<String, Object>> messages(Fields fields) {
        List<Json> given = fields.array("messages");
        FieldPath at = fields.at("messages");
        if (given.isEmpty()) throw at.invalid("is empty; expected at least one message");
        if (given.size() > MAX_MESSAGES)
            throw at.invalid("has " + given.size() + " messages; at most " + MAX_MESSAGES);
        var messages = new ArrayList<Map<String, Object>>();
        for (Json json : given) messages.add(message(Fields.of(at.item(messages.size()), json)));
        return messages;
    }

    /// A message as templates read it: its role and its text.
    private static Map<String, Object> message(Fields fields) {
        var message = new LinkedHashMap<String, Object>();
        String role = fields.string("role");
        message.put("role", role.equals("developer") ? "system" : role);
        message.put("content", content(fields.at("content"), fields.required("content")));
        fields.optionalString("name").ifPresent(name -> message.put("name", name));
        fields.optionalString("reasoning_content").ifPresent(text -> message.put("reasoning_content", text));
        for (String tool : List.of("tool_calls", "function_call", "tool_call_id", "audio", "refusal"))
            refuse(fields, tool);
        fields.requireAllRead();
        return message;
    }

    /// The text of a message, or the texts of its parts, one a line.
    static String content(FieldPath at, Json json) {
        if (json instanceof Json.Str(var text)) return text;
        if (!(json instanceof Json.Arr(var parts)))
            throw at.invalid("is " + json.kind() + "; expected a string or an array of parts");
        var texts = new ArrayList<String>();
        for (Json item : parts) {
            Fields part = Fields.of(at.item(texts.size()), item);
            String type = part.string("type");
            if (!type.equals("text"))
                throw new ApiException(ErrorCode.UNSUPPORTED, part.at("type").toString(),
                        "'" + type + "' is not supported; this service takes text");
            texts.add(part.string("text"));
            part.requireAllRead();
        }
        return String.join("\n", texts);
    }

    static void refuse(Fields fields, String name) {
        fields.optional(name).filter(value -> !neutral(name, value)).ifPresent(_ -> {
            throw unsupported(fields, name, "it is not supported; leave it out");
        });
    }

    /// Whether a field has a value that changes nothing.
    private static boolean neutral(String name, Json value) {
        return switch (value) {
            case Json.Obj(var fields) -> fields.isEmpty()
                    || name.equals("response_format") && fields.equals(Map.of("type", new Json.Str("text")));
            case Json.Arr(var items) -> items.isEmpty()
                    || name.equals("modalities") && items.equals(List.of(new Json.Str("text")));
            case Json.Num(var literal) -> Double.parseDouble(literal) == 0;
            case Json.Str(var text) -> text.equals("none") && (name.equals("tool_choice")
                    || name.equals("function_call")) || text.equals("auto") && name.equals("tool_choice")
                    || text.isEmpty() && name.equals("suffix");
            case Json.Bool _, Json.Null _, Json.Ascii _, Json.Longs _, Json.Doubles _, Json.Packed _,
                    Json.Skipped _ -> false;
        };
    }

    private static ApiException unsupported(Fields fields, String name, String why) {
        return new ApiException(ErrorCode.UNSUPPORTED, fields.at(name).toString(), why);
    }

    private static Map<String, Object> object(FieldPath at, Json json) {
        if (value(json) instanceof Map<?, ?> map) {
            var object = new LinkedHashMap<String, Object>();
            map.forEach((name, value) -> object.put((String) name, value));
            return object;
        }
        throw at.invalid("is no object");
    }

    /// A JSON value as templates read it.
    private static Object value(Json json) {
        return switch (json) {
            case Json.Obj(var fields) -> {
                var object = new LinkedHashMap<String, Object>();
                fields.forEach((name, field) -> object.put(name, value(field)));
                yield object;
            }
            case Json.Arr(var items) -> items.stream().map(OpenAiReader::value)
                    .collect(ArrayList::new, ArrayList::add, ArrayList::addAll);
            case Json.Str(var text) -> text;
            case Json.Num number -> number.integral() && number.literal().length() < 19
                    ? (Object) Long.valueOf(number.literal()) : Double.valueOf(number.literal());
            case Json.Bool(var truth) -> truth;
            case Json.Null _ -> null;
            case Json.Ascii _, Json.Longs _, Json.Doubles _, Json.Packed _, Json.Skipped _ ->
                    throw new IllegalStateException("no value of a chat: " + json.kind());
        };
    }
}
