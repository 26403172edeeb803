package bios.coordinator.gateway;

import bios.coordinator.chat.ChatTemplate;
import bios.coordinator.chat.TemplateException;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.ModelName;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.MissingNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.ZoneId;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;

/// The chat templates of the base models, from the files of their tokenizers: `chat_template.jinja`, else
/// `chat_template` of `tokenizer_config.json`, of several the one named `default`.
final class ChatTemplates {
    private static final int KEPT = 16;
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static final List<String> SPECIAL_TOKENS = List.of("bos_token", "eos_token", "unk_token",
            "sep_token", "pad_token", "cls_token", "mask_token");

    private final GatewayServices services;
    private final Map<ModelName, ModelTemplate> kept = LruMap.of(KEPT);

    ChatTemplates(GatewayServices services) {
        this.services = services;
    }

    /// The template of one model, and the special tokens that it may use.
    final class ModelTemplate {
        private final Optional<String> fingerprint;
        private final ChatTemplate template;
        private final Map<String, Object> specialTokens;

        private ModelTemplate(Optional<String> fingerprint, ChatTemplate template,
                Map<String, Object> specialTokens) {
            this.fingerprint = fingerprint;
            this.template = template;
            this.specialTokens = specialTokens;
        }

        /// The text of a chat, up to where the assistant answers.
        ///
        /// @param arguments further variables of the template
        String render(List<Map<String, Object>> messages, Map<String, Object> arguments)
                throws TemplateException {
            Map<String, Object> variables = new HashMap<>(specialTokens);
            variables.put("tools", null);
            variables.put("documents", null);
            variables.put("add_generation_prompt", true);
            variables.putAll(arguments);
            variables.put("messages", messages);
            return template.render(variables, services.clock().instant().atZone(ZoneId.systemDefault()));
        }
    }

    /// The template of a model; an [ApiException] if it has none that can be used.
    CompletionStage<ModelTemplate> of(ModelInfo model) {
        ModelTemplate known = kept.get(model.name());
        if (known != null && known.fingerprint.equals(model.fingerprint()))
            return CompletableFuture.completedStage(known);
        return services.engine(model.name(), EngineReply.TokenizerFiles.class,
                replyTo -> new EngineCommand.FetchTokenizerFiles(model.name(), replyTo)).thenApply(reply -> {
                    ModelTemplate read = read(model, reply.files());
                    kept.put(model.name(), read);
                    return read;
                });
    }

    private ModelTemplate read(ModelInfo model, Map<String, byte[]> files) {
        JsonNode config = json(files.get("tokenizer_config.json"));
        String source = source(model, config, files);
        try {
            return new ModelTemplate(model.fingerprint(), ChatTemplate.parse(source),
                    specialTokens(config, json(files.get("special_tokens_map.json"))));
        } catch (TemplateException wrong) {
            throw none(model, "has a chat template that cannot be read here (" + wrong.getMessage()
                    + "); repair its chat_template.jinja");
        }
    }

    private static String source(ModelInfo model, JsonNode config, Map<String, byte[]> files) {
        byte[] file = files.get("chat_template.jinja");
        if (file != null) return new String(file, StandardCharsets.UTF_8);
        JsonNode given = config.path("chat_template");
        if (given.isTextual()) return given.textValue();
        for (JsonNode named : given)
            if (named.path("name").asText().equals("default") && named.path("template").isTextual())
                return named.path("template").textValue();
        throw none(model, "has no chat template; add chat_template.jinja to its folder, or use"
                + " /v1/completions with a prompt");
    }

    private static ApiException none(ModelInfo model, String why) {
        return new ApiException(ErrorCode.NO_CHAT_TEMPLATE, "model", model.name() + " " + why);
    }

    private static Map<String, Object> specialTokens(JsonNode config, JsonNode map) {
        Map<String, Object> tokens = new HashMap<>();
        for (String name : SPECIAL_TOKENS)
            for (JsonNode node : List.of(map.path(name), config.path(name))) {
                JsonNode text = node.isObject() ? node.path("content") : node;
                if (text.isTextual()) tokens.put(name, text.textValue());
            }
        return tokens;
    }

    private static JsonNode json(byte[] file) {
        try {
            return file == null || file.length == 0 ? MissingNode.getInstance() : MAPPER.readTree(file);
        } catch (IOException _) {
            return MissingNode.getInstance(); // the worker serves the model without this file
        }
    }
}
