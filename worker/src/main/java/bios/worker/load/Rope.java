package bios.worker.load;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.Set;
import java.util.TreeSet;

/// The parameters of rotary positions: the angle of pair i at position p is p · inverseFrequencies[i] (Su et
/// al. 2021), computed in fp32 as transformers does (modeling_rope_utils.py), because models are trained with
/// its rounding.
///
/// @param inverseFrequencies headDim / 2 of them
/// @param attentionFactor multiplies cos and sin
public record Rope(float[] inverseFrequencies, float attentionFactor) {
    private static final Set<String> TYPES = new TreeSet<>(Set.of("default", "linear", "llama3", "yarn"));

    /// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).
    static Rope of(String where, JsonNode config, int headDim, int contextLength) {
        JsonNode parameters = config.hasNonNull("rope_scaling")
                ? config.get("rope_scaling") : config.path("rope_parameters");
        parameters = flat(where, parameters);
        double theta = parameters.path("rope_theta").asDouble(config.path("rope_theta").asDouble(10_000));
        String type = parameters.path("rope_type").asText(parameters.path("type").asText("default"));
        double partial = parameters.path("partial_rotary_factor")
                .asDouble(config.path("partial_rotary_factor").asDouble(1));
        if (!TYPES.contains(type))
            throw new ModelRefused(where, "rope type '" + type + "' is unknown", "expected one of " + TYPES);
        if (partial != 1)
            throw new ModelRefused(where, "partial_rotary_factor is " + partial,
                    "only whole heads are rotated (1.0)");
        if (!(theta > 0))
            throw new ModelRefused(where, "rope_theta is " + theta, "expected a positive number");
        if (headDim % 2 != 0)
            throw new ModelRefused(where, "head_dim " + headDim + " is odd", "rotary positions need pairs");
        float[] frequencies = new float[headDim / 2];
        for (int i = 0; i < frequencies.length; i++)
            frequencies[i] = 1f / (float) Math.pow(theta, (float) (2 * i) / (float) headDim);
        return switch (type) {
            case "default" -> new Rope(frequencies, 1);
            case "linear" -> linear(where, frequencies, parameters);
            case "llama3" -> llama3(where, frequencies, parameters, config, contextLength);
            default -> yarn(where, theta, headDim, parameters, config, contextLength);
        };
    }

    /// transformers 5 may nest the parameters by layer type; only one set for all layers is supported.
    private static JsonNode flat(String where, JsonNode parameters) {
        JsonNode first = null;
        for (JsonNode child : parameters) {
            if (!child.isObject()) return parameters;
            if (first != null && !first.equals(child))
                throw new ModelRefused(where, "rope_parameters differ between layer types",
                        "only models with one set are served");
            first = child;
        }
        return first == null ? parameters : first;
    }

    private static Rope linear(String where, float[] frequencies, JsonNode parameters) {
        float factor = (float) number(where, parameters, "factor");
        for (int i = 0; i < frequencies.length; i++) frequencies[i] /= factor;
        return new Rope(frequencies, 1);
    }

    private static Rope llama3(String where, float[] frequencies, JsonNode parameters, JsonNode config,
            int contextLength) {
        float factor = (float) number(where, parameters, "factor");
        double low = number(where, parameters, "low_freq_factor");
        double high = number(where, parameters, "high_freq_factor");
        double original = originalLength(parameters, config, contextLength);
        for (int i = 0; i < frequencies.length; i++) {
            float f = frequencies[i];
            float wavelength = (float) (2 * Math.PI) / f;
            if (wavelength > (float) (original / low)) frequencies[i] = f / factor;
            else if (!(wavelength < (float) (original / high))) {
                float smooth = ((float) original / wavelength - (float) low) / (float) (high - low);
                frequencies[i] = (1 - smooth) * f / factor + smooth * f;
            }
        }
        return new Rope(frequencies, 1);
    }

    /// YaRN (Peng et al. 2023).
    private static Rope yarn(String where, double theta, int headDim, JsonNode parameters, JsonNode config,
            int contextLength) {
        double original = originalLength(parameters, config, contextLength);
        double factor = parameters.hasNonNull("factor")
                ? number(where, parameters, "factor") : contextLength / original;
        double low = rotationsToDimension(orElse(parameters, "beta_fast", 32), headDim, theta, original);
        double high = rotationsToDimension(orElse(parameters, "beta_slow", 1), headDim, theta, original);
        if (parameters.path("truncate").asBoolean(true)) {
            low = Math.floor(low);
            high = Math.ceil(high);
        }
        low = Math.max(low, 0);
        high = Math.min(high, headDim - 1);
        if (low == high) high += 0.001;
        float[] frequencies = new float[headDim / 2];
        for (int i = 0; i < frequencies.length; i++) {
            float wave = (float) Math.pow(theta, (float) (2 * i) / (float) headDim);
            float extrapolated = 1f / wave;
            float interpolated = 1f / ((float) factor * wave);
            float ramp = Math.clamp((i - (float) low) / (float) (high - low), 0f, 1f);
            float keep = 1 - ramp;
            frequencies[i] = interpolated * (1 - keep) + extrapolated * keep;
        }
        return new Rope(frequencies, (float) yarnAttention(parameters, factor));
    }

    private static double yarnAttention(JsonNode parameters, double factor) {
        if (parameters.hasNonNull("attention_factor")) return parameters.get("attention_factor").asDouble();
        double mscale = parameters.path("mscale").asDouble(0);
        double allDim = parameters.path("mscale_all_dim").asDouble(0);
        if (mscale != 0 && allDim != 0) return magnitude(factor, mscale) / magnitude(factor, allDim);
        return magnitude(factor, 1);
    }

    private static double magnitude(double factor, double mscale) {
        return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
    }

    private static double rotationsToDimension(double rotations, int headDim, double theta, double original) {
        return headDim * Math.log(original / (rotations * 2 * Math.PI)) / (2 * Math.log(theta));
    }

    private static double originalLength(JsonNode parameters, JsonNode config, int contextLength) {
        return config.path("original_max_position_embeddings").asDouble(
                parameters.path("original_max_position_embeddings").asDouble(contextLength));
    }

    private static double orElse(JsonNode parameters, String name, double otherwise) {
        double value = parameters.path(name).asDouble(0);
        return value == 0 ? otherwise : value;
    }

    private static double number(String where, JsonNode parameters, String name) {
        JsonNode value = parameters.path(name);
        if (!value.isNumber() || !(value.asDouble() > 0))
            throw new ModelRefused(where, "rope parameter " + name + " is " + value,
                    "expected a positive number");
        return value.asDouble();
    }
}
