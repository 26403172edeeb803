package bios.worker.load;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;

/// The parameters of rotary positions: the angle of pair i at position p is p · inverseFrequencies[i] (Su et
/// al. 2021), computed in fp32 as transformers does (modeling_rope_utils.py), because models are trained with
/// its rounding.
///
/// @param inverseFrequencies headDim / 2 of them
/// @param attentionFactor multiplies cos and sin
public record Rope(float[] inverseFrequencies, float attentionFactor) {
    private static final String ORIGINAL = "original_max_position_embeddings";
    /// The types, each with the parameters that it reads beside [#COMMON].
    private static final SortedMap<String, Set<String>> TYPES = new TreeMap<>(Map.of(
            "default", Set.of(), "dynamic", Set.of("factor"),
            "linear", Set.of("factor", ORIGINAL),
            "llama3", Set.of("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
            "yarn", Set.of("factor", ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "mscale",
                    "mscale_all_dim", "truncate")));
    private static final Set<String> COMMON =
            Set.of("rope_type", "type", "rope_theta", "partial_rotary_factor");

    /// The rotary positions that a config.json describes.
    ///
    /// @param contextLength the most positions: those of the training, stretched by the scaling
    /// @param warnings what the file says beside what is used, or against it
    record Described(Rope rope, int contextLength, List<String> warnings) {}

    /// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before); where a file has
    /// both, as transformers 5 does.
    ///
    /// @param trained `max_position_embeddings`
    static Described of(String where, JsonNode config, int headDim, int trained) {
        List<String> warnings = new ArrayList<>();
        JsonNode parameters = flat(where, chosen(where, config, warnings));
        double theta = decimal(where, parameters, "rope_theta",
                decimal(where, config, "rope_theta", 10_000));
        String type = parameters.path("rope_type").asText(parameters.path("type").asText("default"));
        double partial = decimal(where, parameters, "partial_rotary_factor",
                decimal(where, config, "partial_rotary_factor", 1));
        if (!TYPES.containsKey(type))
            throw new ModelRefused(where, "rope type '" + type + "' is unknown",
                    "expected one of " + TYPES.keySet());
        if (partial != 1)
            throw new ModelRefused(where, "partial_rotary_factor is " + partial,
                    "only whole heads are rotated (1.0)");
        if (!(theta > 0))
            throw new ModelRefused(where, "rope_theta is " + theta, "expected a positive number");
        if (headDim % 2 != 0)
            throw new ModelRefused(where, "head_dim " + headDim + " is odd", "rotary positions need pairs");
        parameters.fieldNames().forEachRemaining(name -> {
            if (!COMMON.contains(name) && !TYPES.get(type).contains(name))
                warnings.add("the rope parameter '" + name + "' is not one of type " + type
                        + " and is ignored");
        });
        double original = !TYPES.get(type).contains(ORIGINAL) ? trained
                : positive(where, config, ORIGINAL, positive(where, parameters, ORIGINAL, trained));
        if (type.equals("dynamic")) theta = dynamicTheta(where, theta, headDim, parameters);
        float[] frequencies = new float[headDim / 2];
        for (int i = 0; i < frequencies.length; i++)
            frequencies[i] = 1f / (float) Math.pow(theta, (float) (2 * i) / (float) headDim);
        return switch (type) {
            case "linear" -> stretched(linear(where, frequencies, parameters), trained, original,
                    number(where, parameters, "factor"), warnings);
            case "llama3" -> new Described(llama3(where, frequencies, parameters, original), trained,
                    List.copyOf(warnings));
            case "yarn" -> {
                double factor = parameters.hasNonNull("factor")
                        ? number(where, parameters, "factor") : trained / original;
                yield stretched(yarn(where, theta, headDim, parameters, factor, original), trained,
                        original, factor, warnings);
            }
            default -> new Described(new Rope(frequencies, 1), trained, List.copyOf(warnings));
        };
    }

    /// Interpolated positions reach `factor` times as far as those of the training. A file gives the length
    /// of the training, the stretched length, or both.
    private static Described stretched(Rope rope, int trained, double original, double factor,
            List<String> warnings) {
        return new Described(rope, Math.clamp((long) (original * factor), trained, Integer.MAX_VALUE),
                List.copyOf(warnings));
    }

    /// `rope_scaling` where it says anything, else `rope_parameters`.
    private static JsonNode chosen(String where, JsonNode config, List<String> warnings) {
        JsonNode parameters = config.path("rope_parameters");
        JsonNode scaling = config.path("rope_scaling");
        requireObject(where, "rope_parameters", parameters);
        requireObject(where, "rope_scaling", scaling);
        if (scaling.isEmpty()) return parameters;
        if (parameters.size() > 0 && !parameters.equals(scaling)) {
            warnings.add("rope_scaling stands beside rope_parameters " + parameters + ", which is ignored,"
                    + " its rope_theta included, as by transformers 5; keep one of them");
        }
        return scaling;
    }

    private static void requireObject(String where, String name, JsonNode value) {
        if (!value.isObject() && !value.isMissingNode() && !value.isNull())
            throw new ModelRefused(where, name + " is " + ModelFolder.shown(value),
                    "expected an object; restore the original config.json");
    }

    /// The base of dynamic NTK scaling up to the length of the training. Longer sequences would need other
    /// frequencies for each length, so the context ends there.
    private static double dynamicTheta(String where, double theta, int headDim, JsonNode parameters) {
        double factor = number(where, parameters, "factor");
        return theta * Math.pow(factor - (factor - 1), (double) headDim / (headDim - 2));
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

    private static Rope llama3(String where, float[] frequencies, JsonNode parameters, double original) {
        float factor = (float) number(where, parameters, "factor");
        double low = number(where, parameters, "low_freq_factor");
        double high = number(where, parameters, "high_freq_factor");
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
    private static Rope yarn(String where, double theta, int headDim, JsonNode parameters, double factor,
            double original) {
        double fast = unlessZero(where, parameters, "beta_fast", 32);
        double slow = unlessZero(where, parameters, "beta_slow", 1);
        double low = rotationsToDimension(fast, headDim, theta, original);
        double high = rotationsToDimension(slow, headDim, theta, original);
        if (ModelFolder.flag(where, parameters, "truncate", true)) {
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
        return new Rope(frequencies, (float) yarnAttention(where, parameters, factor));
    }

    private static double yarnAttention(String where, JsonNode parameters, double factor) {
        if (parameters.hasNonNull("attention_factor")) return number(where, parameters, "attention_factor");
        double mscale = decimal(where, parameters, "mscale", 0);
        double allDim = decimal(where, parameters, "mscale_all_dim", 0);
        if (mscale != 0 && allDim != 0) return magnitude(factor, mscale) / magnitude(factor, allDim);
        return magnitude(factor, 1);
    }

    private static double magnitude(double factor, double mscale) {
        return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
    }

    private static double rotationsToDimension(double rotations, int headDim, double theta, double original) {
        return headDim * Math.log(original / (rotations * 2 * Math.PI)) / (2 * Math.log(theta));
    }

    /// transformers reads 0 as absent.
    private static double unlessZero(String where, JsonNode parameters, String name, double otherwise) {
        return decimal(where, parameters, name, 0) == 0 ? otherwise : number(where, parameters, name);
    }

    private static double positive(String where, JsonNode node, String name, double otherwise) {
        return node.hasNonNull(name) ? number(where, node, name) : otherwise;
    }

    private static double number(String where, JsonNode parameters, String name) {
        if (!(decimal(where, parameters, name, 0) > 0))
            throw new ModelRefused(where, "rope parameter " + name + " is "
                    + ModelFolder.shown(parameters.path(name)), "expected a positive number");
        return parameters.get(name).asDouble();
    }

    private static double decimal(String where, JsonNode node, String name, double otherwise) {
        return node.hasNonNull(name) ? ModelFolder.decimal(where, node, name) : otherwise;
    }
}
