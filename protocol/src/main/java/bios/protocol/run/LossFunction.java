package bios.protocol.run;

import bios.protocol.Invalid;
import java.util.Arrays;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;

/// A token-level loss, summed over positions and sequences. l: learner's log-probability of the target,
/// q: the sampler's (`logprobs`), A: `advantages`, w: `weights`, r = exp(l - q).
public enum LossFunction {
    /// -Σ w·l. `weights` is optional, 1 by default. `target_tokens` and `weights` may be matrices `[N, K]`:
    /// K target tokens for each position.
    CROSS_ENTROPY(Set.of("target_tokens"), Set.of("weights"), Map.of()),
    /// -Σ r·A.
    IMPORTANCE_SAMPLING(Set.of("target_tokens", "logprobs", "advantages"), Set.of(), Map.of()),
    /// -Σ min(r·A, clip(r, low, high)·A) (Schulman et al. 2017), bounds on the ratio itself. They may be
    /// given for each position.
    PPO(Set.of("target_tokens", "logprobs", "advantages"), Set.of(LossFunction.LOW, LossFunction.HIGH),
            Map.of("clip_low_threshold", 0.8, "clip_high_threshold", 1.2)),
    /// -Σ clip(r, low, high)·l·A with the clipped ratio held constant (MiniMax 2025). The bounds may be given
    /// for each position.
    CISPO(Set.of("target_tokens", "logprobs", "advantages"), Set.of(LossFunction.LOW, LossFunction.HIGH),
            Map.of("clip_low_threshold", 0.0, "clip_high_threshold", 4.0)),
    /// -Σ (l·A - beta/2·(l - q)²) (Richemond et al. 2024).
    DRO(Set.of("target_tokens", "logprobs", "advantages"), Set.of(), Map.of("beta", 0.05));

    /// The bounds of the clipped ratio: a setting, or an input with one number for each position, which
    /// counts instead of the setting.
    public static final String LOW = "clip_low_threshold";
    public static final String HIGH = "clip_high_threshold";
    private final Set<String> required;
    private final Set<String> optional;
    private final Map<String, Double> defaults;

    LossFunction(Set<String> required, Set<String> optional, Map<String, Double> defaults) {
        this.required = required;
        this.optional = optional;
        this.defaults = defaults;
    }

    /// The name on the wire: `cross_entropy`, ...
    public String wireName() {
        return name().toLowerCase(Locale.ROOT);
    }

    /// Reads a wire name; [Invalid] lists the known ones.
    public static LossFunction of(String wireName) {
        for (LossFunction f : values()) if (f.wireName().equals(wireName)) return f;
        throw new Invalid("loss_fn", "'" + wireName + "' is unknown; expected "
                + Arrays.stream(values()).map(LossFunction::wireName).collect(Collectors.joining(", ")));
    }

    /// The required names of `loss_fn_inputs`.
    public Set<String> required() {
        return required;
    }

    /// The optional names of `loss_fn_inputs`.
    public Set<String> optional() {
        return optional;
    }

    /// `loss_fn_config` with the defaults filled in; [Invalid] for an unknown or invalid setting.
    public Map<String, Double> settings(Map<String, Double> given) {
        Map<String, Double> all = new TreeMap<>(defaults);
        given.forEach((key, value) -> {
            if (!defaults.containsKey(key))
                throw new Invalid("loss_fn_config." + key, "is not a setting of " + wireName()
                        + (defaults.isEmpty() ? ", which has none"
                                : "; expected " + new TreeSet<>(defaults.keySet())));
            if (value == null || !Double.isFinite(value))
                throw new Invalid("loss_fn_config." + key, value + " is not a finite number");
            all.put(key, value);
        });
        if (defaults.containsKey(LOW) && all.get(LOW) > all.get(HIGH))
            throw new Invalid("loss_fn_config." + LOW, "is above " + HIGH);
        return all;
    }

    /// Checks one datum's names, dtypes and shapes; [Invalid] names the field below `at` (e.g. `data[3]`).
    ///
    /// @param settings complete, see [#settings]
    public void check(String at, Datum datum, Map<String, Double> settings) {
        for (String name : required)
            if (!datum.lossInputs().containsKey(name))
                throw new Invalid(at + ".loss_fn_inputs." + name, "is missing; " + wireName() + " needs it");
        checkTargets(at + ".loss_fn_inputs.target_tokens", datum);
        datum.lossInputs().forEach((name, tensor) -> {
            String field = at + ".loss_fn_inputs." + name;
            if (!required.contains(name) && !optional.contains(name))
                throw new Invalid(field,
                        "is not an input of " + wireName() + "; expected " + new TreeSet<>(required)
                        + (optional.isEmpty() ? "" : " and optionally " + new TreeSet<>(optional)));
            if (!Arrays.equals(tensor.shape(), datum.targets().shape()))
                throw new Invalid(field, "has shape " + Arrays.toString(tensor.shape()) + "; expected "
                        + Arrays.toString(datum.targets().shape()) + ", that of target_tokens");
            if (tensor.dtype() == TensorData.DType.FLOAT32) for (float v : tensor.floats())
                if (!Float.isFinite(v)) throw new Invalid(field, "has " + v + "; expected finite numbers");
        });
        checkBounds(at + ".loss_fn_inputs.", datum, settings);
    }

    private void checkTargets(String field, Datum datum) {
        int n = datum.tokens().length;
        int[] shape = datum.targets().shape();
        boolean vector = shape.length == 1 && shape[0] == n;
        boolean matrix = this == CROSS_ENTROPY && shape.length == 2 && shape[0] == n && shape[1] > 0;
        if (!vector && !matrix)
            throw new Invalid(field, "has shape " + Arrays.toString(shape) + "; expected [" + n + "]"
                    + (this == CROSS_ENTROPY ? " or [" + n + ", K] for K targets of each position" : "")
                    + ", the length of model_input");
        if (datum.targets().dtype() != TensorData.DType.INT64)
            throw new Invalid(field, "is float32; expected int64");
    }

    private void checkBounds(String inputs, Datum datum, Map<String, Double> settings) {
        TensorData lows = datum.lossInputs().get(LOW);
        TensorData highs = datum.lossInputs().get(HIGH);
        if (lows == null && highs == null) return;
        float[] low = lows == null ? null : lows.floats();
        float[] high = highs == null ? null : highs.floats();
        for (int i = 0; i < datum.tokens().length; i++) {
            double least = low == null ? settings.get(LOW) : low[i];
            double most = high == null ? settings.get(HIGH) : high[i];
            if (least > most) throw new Invalid(inputs + (low == null ? HIGH : LOW), "at position " + i
                    + " the bounds are " + least + " to " + most + "; expected the lower one first");
        }
    }
}
