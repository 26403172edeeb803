package bios.coordinator.gateway;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Parses the requests of Anthropic's clients, as [OpenAiReader] does those of OpenAI's: what would change
/// the answer and is not supported is refused by its name.
final class MessagesReader {
    /// Accepted; changes nothing.
    static final List<String> HARMLESS = List.of("metadata", "service_tier");
    static final List<String> UNSUPPORTED = List.of("tools", "tool_choice", "thinking", "mcp_servers",
            "container", "context_management", "output_config");
    private static final String STOP = "stop_sequences";

    private MessagesReader() {}

    /// The body of `/v1/messages`.
    static OpenAiRequest read(Fields fields) {
        var messages = new ArrayList<Map<String, Object>>();
        fields.optional("system").ifPresent(json -> messages.add(message("system",
                OpenAiReader.content(fields.at("system"), json))));
        List<Json> given = fields.array("messages");
        FieldPath at = fields.at("messages");
        if (given.isEmpty()) throw at.invalid("is empty; expected at least one message");
        if (given.size() > OpenAiReader.MAX_MESSAGES)
            throw at.invalid("has " + given.size() + " messages; at most " + OpenAiReader.MAX_MESSAGES);
        for (int i = 0; i < given.size(); i++)
            messages.add(message(Fields.of(at.item(i), given.get(i)), i == given.size() - 1));
        var limit = new OpenAiRequest.MaxTokens(fields.at("max_tokens"),
                Math.toIntExact(fields.integer("max_tokens", 1, Integer.MAX_VALUE)));
        List<String> stops = fields.optionalStrings(STOP).orElse(List.of());
        var params = OpenAiReader.params(fields, STOP, stops, Optional.empty());
        String model = fields.string("model");
        boolean stream = fields.bool("stream", false);
        HARMLESS.forEach(fields::has);
        UNSUPPORTED.forEach(name -> OpenAiReader.refuse(fields, name));
        fields.requireAllRead();
        return new OpenAiRequest(model, new OpenAiRequest.Input.Chat(messages, Map.of()), 1,
                Optional.of(limit), params, stream, false, false, 0);
    }

    private static Map<String, Object> message(Fields fields, boolean last) {
        String role = fields.string("role");
        if (!role.equals("user") && !role.equals("assistant"))
            throw fields.at("role").invalid("'" + role + "' is unknown; expected user or assistant");
        if (last && role.equals("assistant"))
            throw new ApiException(ErrorCode.UNSUPPORTED, fields.at("role").toString(),
                    "an answer cannot be begun for the model; the last message has to be the user's");
        String content = OpenAiReader.content(fields.at("content"), fields.required("content"));
        fields.requireAllRead();
        return message(role, content);
    }

    private static Map<String, Object> message(String role, String content) {
        var message = new LinkedHashMap<String, Object>();
        message.put("role", role);
        message.put("content", content);
        return message;
    }
}
