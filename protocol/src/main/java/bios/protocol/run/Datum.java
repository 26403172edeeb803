package bios.protocol.run;

import java.util.Arrays;
import java.util.Map;

/// One training sequence: position i of `tokens` predicts position i of the `target_tokens` in `lossInputs`
/// (already shifted by the caller).
///
/// @param tokens model input of N token ids, N at least 1
/// @param lossInputs tensors of the shape of `target_tokens` by name; [LossFunction] defines which
public record Datum(int[] tokens, Map<String, TensorData> lossInputs) {
    public Datum {
        lossInputs = Map.copyOf(lossInputs);
    }

    /// The target tokens: `[N]`, or `[N, K]` for K of each position.
    public TensorData targets() {
        return lossInputs.get("target_tokens");
    }

    /// Target tokens of each position.
    public int targetsEach() {
        return targets().shape().length == 2 ? targets().shape()[1] : 1;
    }

    @Override public boolean equals(Object other) {
        return other instanceof Datum(var t, var l) && Arrays.equals(t, tokens) && l.equals(lossInputs);
    }

    @Override public int hashCode() {
        return 31 * Arrays.hashCode(tokens) + lossInputs.hashCode();
    }
}
