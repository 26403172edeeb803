package bios.coordinator.gateway;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelInfo;
import bios.protocol.model.TargetModule;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.LongConsumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// An adapter that was made elsewhere, in PEFT's two files: what its configuration and the header of its
/// tensors say, checked against each other and the base model. The engine that loads it checks every shape
/// against the model's, and every number.
///
/// @param lora its shape
/// @param header of the tensors, under the names that engines read
/// @param skipped bytes of the uploaded file that `header` replaces
record UploadedAdapter(LoraSpec lora, byte[] header, long skipped) {
    /// The largest configuration.
    static final int MOST_CONFIG_BYTES = 1 << 20;
    /// The largest header: that of an adapter with a thousand layers.
    static final int MOST_HEADER_BYTES = 4 << 20;
    /// What a byte of a header takes while it is read.
    private static final long HEAP_FACTOR = 24;
    private static final int ALIGNMENT = 8;
    private static final Pattern LAYER = Pattern.compile(
            "base_model\\.model\\.model\\.layers\\.(\\d{1,5})\\.([a-z_.]+)\\.lora_([AB])\\.weight");
    private static final Pattern HEAD = Pattern.compile(
            "base_model\\.model\\.(lm_head|model\\.unembed_tokens)\\.lora_([AB])\\.weight");
    private static final String TINKERS_HEAD = "\"base_model.model.model.unembed_tokens.";
    private static final String PEFTS_HEAD = "\"base_model.model.lm_head.";
    private static final Set<String> DTYPES = Set.of("F32", "BF16", "F16");
    /// What changes the correction, or the weights that it corrects, into something that is not LoRA.
    private static final List<String> UNSUPPORTED = List.of("use_dora", "fan_in_fan_out", "lora_bias",
            "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform", "layer_replication",
            "trainable_token_indices", "target_parameters", "use_qalora", "alora_invocation_tokens",
            "use_bdlora");
    private static final Set<String> INITIALIZATIONS = Set.of("gaussian", "eva", "orthogonal");
    private static final JsonMapper JSON = JsonMapper.builder(JsonFactory.builder()
            .streamReadConstraints(StreamReadConstraints.builder().maxNestingDepth(32).build()).build())
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS).build();

    /// Reads the configuration and the header of the tensors; an [ApiException] names the file and what is
    /// wrong in it.
    ///
    /// @param config the whole `adapter_config.json`
    /// @param tensors the begin of `adapter_model.safetensors`; read no further than its header
    /// @param bytes of the whole file of tensors
    /// @param served names of all base models
    /// @param heap is told what reading takes
    static UploadedAdapter read(byte[] config, InputStream tensors, long bytes, ModelInfo model,
            Set<String> served, LongConsumer heap) {
        heap.accept(HEAP_FACTOR * config.length);
        JsonNode given = json(Uploads.CONFIG, config);
        int rank = rank(given);
        double alpha = alpha(given, rank);
        checkSupported(given);
        checkBaseModel(given, model, served);
        byte[] names = header(tensors, bytes, heap);
        Set<TargetModule> targets = new Tensors(model, rank).targets(json(Uploads.WEIGHTS, names));
        checkTargets(given, targets);
        var lora = new LoraSpec(rank, alpha, 0, List.copyOf(targets));
        if (!lora.scales()) throw config("lora_alpha", "is " + given.path("lora_alpha") + LoraSpec.NO_SCALE);
        return new UploadedAdapter(lora, renamed(names),
                Long.BYTES + names.length);
    }

    /// Writes the file with the names that engines read.
    ///
    /// @param uploaded the whole file
    void writeTo(InputStream uploaded, OutputStream out) throws IOException {
        out.write(ByteBuffer.allocate(Long.BYTES).order(ByteOrder.LITTLE_ENDIAN).putLong(header.length)
                .array());
        out.write(header);
        uploaded.skipNBytes(skipped);
        uploaded.transferTo(out);
    }

    private static ApiException wrong(String file, String what) {
        return new ApiException(ErrorCode.INVALID, file, what);
    }

    private static ApiException config(String field, String what) {
        return wrong(Uploads.CONFIG + "." + field, what);
    }

    private static JsonNode json(String file, byte[] text) {
        try {
            JsonNode read = JSON.readTree(text);
            if (read != null && read.isObject()) return read;
            throw wrong(file, "is no JSON object; upload the file that PEFT's save_pretrained writes");
        } catch (JsonProcessingException malformed) {
            throw wrong(file, "is not JSON: " + malformed.getOriginalMessage());
        } catch (IOException failed) {
            throw wrong(file, "cannot be read: " + failed.getMessage());
        }
    }

    private static int rank(JsonNode config) {
        JsonNode type = config.path("peft_type");
        if (!type.asText("").equalsIgnoreCase("LORA")) throw config("peft_type", "is " + type
                + "; only adapters of the type LORA can be used");
        JsonNode rank = config.path("r");
        if (!rank.isInt() || rank.asInt() < 1 || rank.asInt() > LoraSpec.MAX_RANK)
            throw config("r", "is " + rank + "; expected an integer from 1 to " + LoraSpec.MAX_RANK);
        return rank.asInt();
    }

    /// The numerator of the scale: with rsLoRA the correction is scaled by alpha / sqrt(rank).
    private static double alpha(JsonNode config, int rank) {
        JsonNode alpha = config.path("lora_alpha");
        double value = alpha.asDouble();
        if (!alpha.isNumber() || !(value > 0) || Double.isInfinite(value))
            throw config("lora_alpha", "is " + alpha + "; expected a positive number");
        JsonNode rslora = config.path("use_rslora");
        if (!rslora.isBoolean() && !rslora.isMissingNode() && !rslora.isNull())
            throw config("use_rslora", "is " + rslora + "; expected true or false");
        return rslora.booleanValue() ? value * Math.sqrt(rank) : value;
    }

    private static void checkSupported(JsonNode config) {
        for (String field : UNSUPPORTED) {
            JsonNode value = config.path(field);
            if (!(value.isMissingNode() || value.isNull() || value.isContainerNode() && value.isEmpty()
                    || value.isBoolean() && !value.asBoolean()))
                throw config(field, "is " + value + ", which the service does not support; train and save"
                        + " the adapter without it");
        }
        JsonNode bias = config.path("bias");
        if (!bias.isMissingNode() && !bias.asText().equals("none"))
            throw config("bias", "is " + bias + "; only adapters without trained biases (none) can be used");
        JsonNode first = config.path("init_lora_weights");
        if (first.isTextual() && !INITIALIZATIONS.contains(first.asText()))
            throw config("init_lora_weights", "is " + first + ", which changes the base model's weights; save"
                    + " the adapter with path_initial_model_for_weight_conversion");
    }

    private static void checkBaseModel(JsonNode config, ModelInfo model, Set<String> served) {
        String named = config.path("base_model_name_or_path").asText("");
        if (!named.equals(model.name().value()) && served.contains(named))
            throw config("base_model_name_or_path", "is " + named + ", but the upload was started for "
                    + model.name() + "; start it for " + named);
    }

    private static void checkTargets(JsonNode config, Set<TargetModule> targets) {
        JsonNode named = config.path("target_modules");
        if (!named.isArray()) return; // a pattern, or PEFT's own choice: the tensors say which they are
        Set<String> expected = new TreeSet<>();
        targets.forEach(target -> expected.add(target.peftName()));
        for (JsonNode each : named) {
            String name = each.asText("").substring(each.asText("").lastIndexOf('.') + 1);
            if (!expected.contains(name.equals("unembed_tokens") ? "lm_head" : name))
                throw config("target_modules", "names " + each + ", for which " + Uploads.WEIGHTS
                        + " has no tensors that fit the base model; it has " + expected);
        }
    }

    private static byte[] header(InputStream tensors, long bytes, LongConsumer heap) {
        try {
            byte[] length = tensors.readNBytes(Long.BYTES);
            long count = length.length < Long.BYTES ? -1
                    : ByteBuffer.wrap(length).order(ByteOrder.LITTLE_ENDIAN).getLong();
            if (count < 2 || count > bytes - Long.BYTES || count > MOST_HEADER_BYTES)
                throw wrong(Uploads.WEIGHTS, "has no header of a safetensors file of at most "
                        + MOST_HEADER_BYTES + " bytes; save the adapter as safetensors");
            heap.accept(HEAP_FACTOR * count);
            byte[] header = tensors.readNBytes((int) count);
            if (header.length < count) throw new EOFException();
            return header;
        } catch (IOException failed) {
            throw wrong(Uploads.WEIGHTS, "is cut off: " + failed);
        }
    }

    /// The header with PEFT's name of an output head, aligned.
    private static byte[] renamed(byte[] header) {
        byte[] text = new String(header, StandardCharsets.UTF_8).replace(TINKERS_HEAD, PEFTS_HEAD)
                .getBytes(StandardCharsets.UTF_8);
        byte[] padded = Arrays.copyOf(text, Math.ceilDiv(text.length, ALIGNMENT) * ALIGNMENT);
        Arrays.fill(padded, text.length, padded.length, (byte) ' ');
        return padded;
    }

    /// Checks names, types and shapes of the tensors.
    private static final class Tensors {
        private final ModelInfo model;
        private final int rank;
        private final Set<String> found = new HashSet<>();
        private final Set<TargetModule> targets = EnumSet.noneOf(TargetModule.class);

        Tensors(ModelInfo model, int rank) {
            this.model = model;
            this.rank = rank;
        }

        Set<TargetModule> targets(JsonNode header) {
            for (Map.Entry<String, JsonNode> tensor : header.properties())
                if (!tensor.getKey().equals("__metadata__")) check(tensor.getKey(), tensor.getValue());
            if (targets.isEmpty()) throw wrong(Uploads.WEIGHTS, "has no tensors of an adapter");
            for (TargetModule target : targets)
                for (int layer = 0; layer < (target == TargetModule.HEAD ? 1 : model.layers()); layer++)
                    for (String factor : List.of("A", "B"))
                        if (!found.contains(key(target, layer, factor))) throw wrong(Uploads.WEIGHTS,
                                "lacks lora_" + factor + " of " + target.path() + (target == TargetModule.HEAD
                                ? "" : " in layer " + layer) + ": " + model.name() + " has "
                                + model.layers()
                                + " layers, and an adapter corrects a module in all of them");
            return targets;
        }

        private static String key(TargetModule target, int layer, String factor) {
            return target + " " + layer + " " + factor;
        }

        private static ApiException tensor(String name, String what) {
            String shown = name.length() > 200 ? name.substring(0, 200) + "..." : name;
            return wrong(Uploads.WEIGHTS, "tensor '" + shown + "' " + what);
        }

        private void check(String name, JsonNode tensor) {
            Matcher inLayer = LAYER.matcher(name);
            Matcher inHead = HEAD.matcher(name);
            TargetModule target = inHead.matches() ? TargetModule.HEAD : inLayer.matches()
                    ? Arrays.stream(TargetModule.values()).filter(t -> t.path().equals(inLayer.group(2)))
                            .findFirst().orElse(null) : null;
            if (target == null) throw tensor(name, "is not part of an adapter on linear layers of "
                    + model.name() + "; expected names like"
                    + " base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
            int layer = target == TargetModule.HEAD ? 0 : Integer.parseInt(inLayer.group(1));
            if (layer > 0 && layer >= model.layers()) throw tensor(name, "is of a layer that " + model.name()
                    + " does not have: it has " + model.layers());
            String factor = target == TargetModule.HEAD ? inHead.group(2) : inLayer.group(3);
            if (!found.add(key(target, layer, factor)))
                throw tensor(name, "is there twice, as lm_head and as unembed_tokens");
            targets.add(target);
            if (!DTYPES.contains(tensor.path("dtype").asText())) throw tensor(name, "has dtype "
                    + tensor.path("dtype") + "; save the adapter as F32, BF16 or F16");
            checkShape(name, tensor.path("shape"), target, factor.equals("A"));
        }

        /// Checks the sizes that the gateway knows: the rank, the width of the model, and its vocabulary.
        private void checkShape(String name, JsonNode shape, TargetModule target, boolean a) {
            boolean inWidth = target != TargetModule.O && target != TargetModule.DOWN;
            long rows = a ? rank : target == TargetModule.HEAD ? model.vocabularySize()
                    : inWidth ? -1 : model.hiddenSize();
            long columns = !a ? rank : inWidth ? model.hiddenSize() : -1;
            boolean fits = shape.isArray() && shape.size() == 2
                    && (rows < 0 || shape.get(0).asLong(-1) == rows)
                    && (columns < 0 || shape.get(1).asLong(-1) == columns);
            if (!fits) throw tensor(name, "has shape " + shape + "; expected [" + (rows < 0 ? "any" : rows)
                    + ", " + (columns < 0 ? "any" : columns) + "]: " + Uploads.CONFIG + " says r = " + rank
                    + ", and " + model.name() + " is " + model.hiddenSize() + " wide");
        }
    }
}
