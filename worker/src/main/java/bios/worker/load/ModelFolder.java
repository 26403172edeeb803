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
/// @param warnings what the configuration says beside what is used, or against it
public record ModelFolder(Path path, ModelSpec spec, List<String> warnings) {
    private static final Set<String> ARCHITECTURES = new TreeSet<>(
            Set.of("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"));

    /// Reads and checks the configuration; throws [ModelRefused] if anything is not supported.
    public static ModelFolder open(Path folder) {
        Path file = folder.resolve("config.json");
        if (!Files.isRegularFile(file))
            throw new ModelRefused(folder.toString(), "holds no config.json",
                    "expected a folder as save_pretrained writes it");
        JsonNode config = Safetensors.json(file.toString(), file);
        var reader = new Reader(folder.toString(), config);
        Rope.Described rope = reader.rope();
        return new ModelFolder(folder, reader.spec(endTokens(folder, config), rope), rope.warnings());
    }

    /// A value of a JSON file in a message.
    static String shown(JsonNode value) {
        return value.isMissingNode() ? "missing" : value.toString();
    }

    /// Maps the tensors; the caller closes them.
    public Safetensors tensors() {
        return Safetensors.open(path);
    }

    /// A number that is finite in fp32, in which models are computed.
    static double decimal(String where, JsonNode node, String name) {
        JsonNode value = node.path(name);
        if (!value.isNumber() || !Float.isFinite(value.floatValue()))
            throw new ModelRefused(where, name + " is " + shown(value),
                    "expected a number that is finite in fp32; restore the original config.json");
        return value.asDouble();
    }

    /// A field that is true, false, or has its default where it is absent.
    static boolean flag(String where, JsonNode node, String name, boolean otherwise) {
        if (!node.hasNonNull(name)) return otherwise;
        JsonNode value = node.get(name);
        if (!value.isBoolean())
            throw new ModelRefused(where, name + " is " + shown(value), "expected true or false");
        return value.booleanValue();
    }

    private static Set<Integer> endTokens(Path folder, JsonNode config) {
        Path file = folder.resolve("generation_config.json");
        JsonNode generation = Files.isRegularFile(file) ? Safetensors.json(file.toString(), file) : config;
        JsonNode own = generation.hasNonNull("eos_token_id") ? generation : config;
        JsonNode ids = own.path("eos_token_id");
        Set<Integer> tokens = new TreeSet<>();
        if (ids.isMissingNode() || ids.isNull()) return Set.of();
        for (JsonNode id : ids.isArray() ? ids : List.of(ids)) {
            if (!id.isInt())
                throw new ModelRefused(folder.toString(),
                        (own == config ? "config.json" : "generation_config.json") + ": eos_token_id is "
                        + shown(ids), "expected a token id or an array of token ids");
            tokens.add(id.intValue());
        }
        return Set.copyOf(tokens);
    }

    /// Reads fields of one config.json.
    private record Reader(String where, JsonNode config) {
        Rope.Described rope() {
            architecture();
            return Rope.of(where, config, headDim(), number("max_position_embeddings"));
        }

        private String architecture() {
            String architecture = config.path("architectures").path(0).asText("");
            if (architecture.isEmpty())
                throw refuse("names no architecture: 'architectures' is "
                        + shown(config.path("architectures")), "expected one of " + ARCHITECTURES);
            if (!ARCHITECTURES.contains(architecture))
                throw refuse("architecture '" + architecture + "' is not served",
                        "expected one of " + ARCHITECTURES);
            return architecture;
        }

        private int headDim() {
            if (config.hasNonNull("head_dim")) return number("head_dim");
            return architecture().equals("Qwen3ForCausalLM")
                    ? 128 : number("hidden_size") / number("num_attention_heads");
        }

        ModelSpec spec(Set<Integer> endTokens, Rope.Described rope) {
            String architecture = architecture();
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
            boolean bias = !mistral && !qwen2 && flag("attention_bias");
            List<Integer> windows = mistral ? oneWindow() : qwen2 || qwen3 ? windows() : everything();
            return new ModelSpec(architecture, number("vocab_size"), hidden, number("intermediate_size"),
                    number("num_hidden_layers"), heads, kvHeads, headDim(),
                    (float) eps(), flag("tie_word_embeddings"), qwen2 || bias, bias,
                    architecture.startsWith("Llama") && flag("mlp_bias"), qwen3,
                    rope.rope(), windows, rope.contextLength(), endTokens);
        }

        private double eps() {
            if (!config.hasNonNull("rms_norm_eps")) return 1e-6;
            double eps = decimal(file(), config, "rms_norm_eps");
            if (eps < 0)
                throw refuse("rms_norm_eps is " + eps, "expected a number of at least 0");
            return eps;
        }

        private boolean flag(String name) {
            return ModelFolder.flag(file(), config, name, false);
        }

        private int countFromZero(String name, int otherwise) {
            if (!config.hasNonNull(name)) return otherwise;
            JsonNode value = config.get(name);
            if (!value.isInt() || value.intValue() < 0)
                throw refuse(name + " is " + shown(value), "expected a whole number of at least 0");
            return value.intValue();
        }

        private int number(String name) {
            JsonNode value = config.path(name);
            if (!value.isInt() || value.asInt() < 1)
                throw refuse(name + " is " + shown(value), "expected a positive whole number");
            return value.asInt();
        }

        private List<Integer> everything() {
            return new ArrayList<>(Collections.nCopies(number("num_hidden_layers"), 0));
        }

        /// Mistral: one window for all layers, if any. A config without the field means 4096.
        private List<Integer> oneWindow() {
            int window = countFromZero("sliding_window", config.has("sliding_window") ? 0 : 4096);
            return Collections.nCopies(number("num_hidden_layers"), window);
        }

        /// Qwen: the layers that are sliding in `layer_types`; without it those from `max_window_layers` on.
        private List<Integer> windows() {
            List<Integer> windows = everything();
            boolean slides = flag("use_sliding_window")
                    && (!config.has("sliding_window") || config.hasNonNull("sliding_window"));
            int window = countFromZero("sliding_window", 4096);
            int firstSliding = countFromZero("max_window_layers", 28);
            JsonNode types = config.path("layer_types");
            if (config.hasNonNull("layer_types") && !types.isArray())
                throw refuse("layer_types is " + shown(types), "expected an array with one for each layer");
            if (types.isArray() && types.size() != windows.size())
                throw refuse("layer_types has " + types.size() + " entries",
                        "expected one for each of the " + windows.size() + " layers");
            for (int i = 0; i < windows.size(); i++) {
                String type = types.isArray()
                        ? types.get(i).asText() : slides && i >= firstSliding
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

        private String file() {
            return where + ": config.json";
        }

        private ModelRefused refuse(String what, String remedy) {
            return new ModelRefused(where, "config.json: " + what, remedy);
        }
    }
}
