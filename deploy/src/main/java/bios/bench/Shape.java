package bios.bench;

import bios.worker.kernel.HalfFloats;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/// The shape of a well-known model, used with random weights: a preset of `deploy/bench/peer_peft.py`.
///
/// @param name the preset's name
/// @param architecture `LlamaForCausalLM`, `Qwen2ForCausalLM` or `Qwen3ForCausalLM`
/// @param tied whether the head is the embedding
public record Shape(String name, String architecture, int vocabulary, int hidden, int intermediate,
        int layers, int heads, int kvHeads, int context, double ropeTheta, boolean tied) {
    private static final int NUMBERS = 1 << 22;

    /// A model of 110 million weights.
    public static final Shape LLAMA_110M =
            new Shape("llama-110m", "LlamaForCausalLM", 32000, 768, 2048, 12, 12, 12, 2048, 1e4, false);
    /// Qwen2.5-0.5B.
    public static final Shape QWEN_HALF_B =
            new Shape("qwen2.5-0.5b", "Qwen2ForCausalLM", 151936, 896, 4864, 24, 14, 2, 32768, 1e6, true);

    /// Llama-3-8B.
    public static final Shape LLAMA_8B =
            new Shape("llama-3-8b", "LlamaForCausalLM", 128256, 4096, 14336, 32, 32, 8, 8192, 5e5, false);
    /// Qwen3-8B.
    public static final Shape QWEN_8B =
            new Shape("qwen3-8b", "Qwen3ForCausalLM", 151936, 4096, 12288, 36, 32, 8, 40960, 1e6, false);

    /// A model of an architecture that any device trains in a moment.
    static Shape tiny(String architecture) {
        return new Shape("tiny-" + architecture, architecture, 499, 256, 384, 2, 4, 2, 512, 1e4,
                architecture.startsWith("Qwen2"));
    }

    private static final List<Shape> ALL = List.of(LLAMA_110M, QWEN_HALF_B, LLAMA_8B, QWEN_8B);

    /// The preset of this name, or null.
    public static Shape of(String name) {
        for (Shape shape : ALL) if (shape.name.equals(name)) return shape;
        return null;
    }

    /// The names of all presets.
    public static List<String> names() {
        return ALL.stream().map(Shape::name).toList();
    }

    /// The same with this context length.
    public Shape withContext(int tokens) {
        return new Shape(name, architecture, vocabulary, hidden, intermediate, layers, heads, kvHeads,
                Math.max(context, tokens), ropeTheta, tied);
    }

    /// The first layers of the model with a small vocabulary: what depends on the size of the layers can be
    /// measured on it, and it is loaded in a moment.
    Shape slice(int most, int tokens) {
        return new Shape(name + "-slice", architecture, Math.min(vocabulary, tokens), hidden, intermediate,
                Math.min(layers, most), heads, kvHeads, context, ropeTheta, tied);
    }

    int headDim() {
        return hidden / heads;
    }

    /// The matrices of one layer: q, k, v, o, gate, up, down.
    List<Linear> linears() {
        int queries = heads * headDim();
        int keys = kvHeads * headDim();
        return List.of(new Linear(hidden, queries), new Linear(hidden, keys), new Linear(hidden, keys),
                new Linear(queries, hidden), new Linear(hidden, intermediate),
                new Linear(hidden, intermediate), new Linear(intermediate, hidden));
    }

    /// The output head.
    Linear head() {
        return new Linear(hidden, vocabulary);
    }

    /// Bytes of weights that each decoded token reads: all layers and the head.
    long decodedBytes(boolean bf16) {
        long inLayers = layers * linears().stream().mapToLong(Linear::weights).sum();
        return (inLayers + head().weights()) * (bf16 ? 2 : 4);
    }

    /// Bytes of all tensors.
    long bytes(boolean bf16) {
        return tensors().values().stream().mapToLong(Shape::elements).sum() * (bf16 ? 2 : 4);
    }

    /// Writes a model folder (config.json, model.safetensors) with weights drawn from N(0, 0.02²), norms of
    /// 1.
    ///
    /// @param bf16 whether weights are bfloat16, else float32
    public void write(Path folder, boolean bf16) throws IOException {
        Files.createDirectories(folder);
        ObjectMapper json = new ObjectMapper();
        ObjectNode config = json.createObjectNode()
                .put("model_type", family())
                .put("vocab_size", vocabulary).put("hidden_size", hidden)
                .put("intermediate_size", intermediate).put("num_hidden_layers", layers)
                .put("num_attention_heads", heads).put("num_key_value_heads", kvHeads)
                .put("max_position_embeddings", context).put("rope_theta", ropeTheta)
                .put("head_dim", headDim()).put("tie_word_embeddings", tied)
                .put("rms_norm_eps", 1e-6).put("hidden_act", "silu")
                .put("torch_dtype", bf16 ? "bfloat16" : "float32");
        config.putArray("architectures").add(architecture);
        Files.writeString(folder.resolve("config.json"), config.toPrettyString());
        Map<String, int[]> tensors = tensors();
        ObjectNode header = json.createObjectNode();
        long offset = 0;
        for (var tensor : tensors.entrySet()) {
            long bytes = elements(tensor.getValue()) * (bf16 ? 2 : 4);
            ObjectNode entry = header.putObject(tensor.getKey()).put("dtype", bf16 ? "BF16" : "F32");
            for (int n : tensor.getValue()) entry.withArray("shape").add(n);
            entry.putArray("data_offsets").add(offset).add(offset += bytes);
        }
        // padded with spaces as safetensors does it, so that elements are aligned
        String unpadded = header.toString();
        byte[] text = (unpadded + " ".repeat(-unpadded.length() & 7)).getBytes(StandardCharsets.UTF_8);
        try (OutputStream out = new BufferedOutputStream(
                Files.newOutputStream(folder.resolve("model.safetensors")), 1 << 20)) {
            out.write(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(text.length).array());
            out.write(text);
            SplittableRandom chance = new SplittableRandom(1);
            byte[] numbers = numbers(bf16, chance);
            byte[] ones = ones(bf16);
            for (var tensor : tensors.entrySet())
                fill(out, elements(tensor.getValue()) * (bf16 ? 2 : 4),
                        tensor.getKey().endsWith("norm.weight") ? ones : numbers, chance);
        }
    }

    private String family() {
        return switch (architecture) {
            case "LlamaForCausalLM" -> "llama";
            case "Qwen2ForCausalLM" -> "qwen2";
            case "Qwen3ForCausalLM" -> "qwen3";
            default -> throw new IllegalArgumentException(architecture);
        };
    }

    /// Random numbers, from which tensors take their elements: drawing each one of a large model would take
    /// minutes.
    private static byte[] numbers(boolean bf16, SplittableRandom chance) {
        ByteBuffer numbers = ByteBuffer.allocate(NUMBERS * (bf16 ? 2 : 4)).order(ByteOrder.LITTLE_ENDIAN);
        for (int i = 0; i < NUMBERS; i++) {
            // the sum of three uniform numbers: nearly normal, and fast
            double sum = chance.nextDouble() + chance.nextDouble() + chance.nextDouble();
            put(numbers, 0.02f * (float) (2 * sum - 3), bf16);
        }
        return numbers.array();
    }

    private static byte[] ones(boolean bf16) {
        ByteBuffer ones = ByteBuffer.allocate(1 << 16).order(ByteOrder.LITTLE_ENDIAN);
        while (ones.hasRemaining()) put(ones, 1, bf16);
        return ones.array();
    }

    private static void put(ByteBuffer to, float value, boolean bf16) {
        if (bf16) to.putShort(HalfFloats.toBf16(value));
        else to.putFloat(value);
    }

    /// Writes pieces of `numbers` from random places, so that no two rows of a tensor are alike.
    private static void fill(OutputStream out, long bytes, byte[] numbers, SplittableRandom chance)
            throws IOException {
        for (long left = bytes; left > 0;) {
            int from = 4 * chance.nextInt(numbers.length / 8);
            int count = (int) Math.min(left, numbers.length - from);
            out.write(numbers, from, count);
            left -= count;
        }
    }

    private Map<String, int[]> tensors() {
        Map<String, int[]> all = new LinkedHashMap<>();
        int headDim = hidden / heads;
        all.put("model.embed_tokens.weight", new int[] {vocabulary, hidden});
        for (int i = 0; i < layers; i++) {
            String at = "model.layers." + i + ".";
            all.put(at + "input_layernorm.weight", new int[] {hidden});
            int[][] attention = {{heads * headDim, hidden}, {kvHeads * headDim, hidden},
                    {kvHeads * headDim, hidden}, {hidden, heads * headDim}};
            String[] names = {"q_proj", "k_proj", "v_proj", "o_proj"};
            for (int p = 0; p < 4; p++) {
                all.put(at + "self_attn." + names[p] + ".weight", attention[p]);
                if (architecture.startsWith("Qwen2") && p < 3)
                    all.put(at + "self_attn." + names[p] + ".bias", new int[] {attention[p][0]});
            }
            if (architecture.startsWith("Qwen3"))
                for (String norm : new String[] {"q_norm", "k_norm"})
                    all.put(at + "self_attn." + norm + ".weight", new int[] {headDim});
            all.put(at + "post_attention_layernorm.weight", new int[] {hidden});
            all.put(at + "mlp.gate_proj.weight", new int[] {intermediate, hidden});
            all.put(at + "mlp.up_proj.weight", new int[] {intermediate, hidden});
            all.put(at + "mlp.down_proj.weight", new int[] {hidden, intermediate});
        }
        all.put("model.norm.weight", new int[] {hidden});
        if (!tied) all.put("lm_head.weight", new int[] {vocabulary, hidden});
        return all;
    }

    private static long elements(int[] shape) {
        long n = 1;
        for (int extent : shape) n *= extent;
        return n;
    }
}
