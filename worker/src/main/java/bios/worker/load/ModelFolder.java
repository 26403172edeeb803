package bios.worker.load;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;

/// A base model as `save_pretrained` writes it: `config.json`, safetensors, and optionally
/// `generation_config.json`.
///
/// @param path the folder
/// @param spec the contents of its configuration
public record ModelFolder(Path path, ModelSpec spec) {
    private static final Set<String> ARCHITECTURES = new TreeSet<>(
            Set.of("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"));

    /// Reads and checks the configuration; throws [ModelRefused] if anything is not supported.
    public static ModelFolder open(Path folder) {
        Path file = folder.resolve("config.json");
        if (!Files.isRegularFile(file))
            throw new ModelRefused(folder.toString(), "holds no config.json",
                    "expected a folder as save_pretrained writes it");
        JsonNode config = Safetensors.json(file.toString(), file);
        return new ModelFolder(folder, new Reader(folder.toString(), config).spec(endTokens(folder, config)));
    }

    /// Maps the tensors; the caller closes them.
    public Safetensors tensors() {
        return Safetensors.open(path);
    }

    private static Set<Integer> endTokens(Path folder, JsonNode config) {
        Path file = folder.resolve("generation_config.json");
        JsonNode generation = Files.isRegularFile(file) ? Safetensors.json(file.toString(), file) : config;
        JsonNode ids = generation.hasNonNull("eos_token_id")
                ? generation.get("eos_token_id") : config.path("eos_token_id");
        Set<Integer> tokens = new TreeSet<>();
        if (ids.isInt()) tokens.add(ids.asInt());
        for (JsonNode id : ids) tokens.add(id.asInt());
        return Set.copyOf(tokens);
    }

    /// Reads fields of one config.json.
    private record Reader(String where, JsonNode config) {
        ModelSpec spec(Set<Integer> endTokens) {
            String architecture = config.path("architectures").path(0).asText("");
            if (!ARCHITECTURES.contains(architecture))
                throw refuse("architecture '" + architecture + "' is not served",
                        "expected one of " + ARCHITECTURES);
            if (config.hasNonNull("quantization_config"))
                throw refuse("quantization_config is set", "use the original weights in bf16, fp16 or fp32");
            String activation = config.path("hidden_act").asText("silu");
            if (!activation.equals("silu"))
                throw refuse("hidden_act '" + activation + "' is unknown", "expected silu");
            boolean qwen2 = architecture.equals("Qwen2ForCausalLM");
            boolean qwen3 = architecture.equals("Qwen3ForCausalLM");
            boolean mistral = architecture.equals("MistralForCausalLM");
            int hidden = number("hidden_size");
            int heads = number("num_attention_heads");
            int kvHeads = config.hasNonNull("num_key_value_heads") ? number("num_key_value_heads") : heads;
            if (heads % kvHeads != 0)
                throw refuse("num_key_value_heads " + kvHeads + " does not divide num_attention_heads "
                        + heads, "restore the original config.json");
            int headDim = config.hasNonNull("head_dim") ? number("head_dim") : qwen3 ? 128 : hidden / heads;
            int context = number("max_position_embeddings");
            boolean bias = !mistral && !qwen2 && config.path("attention_bias").asBoolean(false);
            List<Integer> windows = mistral ? oneWindow() : qwen2 || qwen3 ? windows() : everything();
            return new ModelSpec(architecture, number("vocab_size"), hidden, number("intermediate_size"),
                    number("num_hidden_layers"), heads, kvHeads, headDim,
                    (float) config.path("rms_norm_eps").asDouble(1e-6),
                    config.path("tie_word_embeddings").asBoolean(false), qwen2 || bias, bias,
                    architecture.startsWith("Llama") && config.path("mlp_bias").asBoolean(false), qwen3,
                    Rope.of(where, config, headDim, context), windows, context, endTokens);
        }

        private int number(String name) {
            JsonNode value = config.path(name);
            if (!value.isInt() || value.asInt() < 1)
                throw refuse(name + " is " + value, "expected a positive whole number");
            return value.asInt();
        }

        private List<Integer> everything() {
            return new ArrayList<>(Collections.nCopies(number("num_hidden_layers"), 0));
        }

        /// Mistral: one window for all layers, if any. A config without the field means 4096.
        private List<Integer> oneWindow() {
            int window = config.has("sliding_window") ? config.get("sliding_window").asInt(0) : 4096;
            return Collections.nCopies(number("num_hidden_layers"), window);
        }

        /// Qwen: the layers that are sliding in `layer_types`; without it those from `max_window_layers` on.
        private List<Integer> windows() {
            List<Integer> windows = everything();
            boolean slides = config.path("use_sliding_window").asBoolean(false)
                    && (!config.has("sliding_window") || config.hasNonNull("sliding_window"));
            int window = config.path("sliding_window").asInt(4096);
            JsonNode types = config.path("layer_types");
            if (types.isArray() && types.size() != windows.size())
                throw refuse("layer_types has " + types.size() + " entries",
                        "expected one for each of the " + windows.size() + " layers");
            for (int i = 0; i < windows.size(); i++) {
                String type = types.isArray()
                        ? types.get(i).asText() : slides && i >= config.path("max_window_layers").asInt(28)
                        ? "sliding_attention" : "full_attention";
                switch (type) {
                    case "full_attention" -> {}
                    case "sliding_attention" -> windows.set(i, slides ? window : 0);
                    default -> throw refuse("layer type '" + type + "' is unknown",
                            "expected full_attention or sliding_attention");
                }
            }
            return List.copyOf(windows);
        }

        private ModelRefused refuse(String what, String remedy) {
            return new ModelRefused(where, "config.json: " + what, remedy);
        }
    }
}
