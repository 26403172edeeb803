package bios.worker.device;

import bios.worker.kernel.HalfFloats;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.util.Optional;

/// How fp32 activations (in forward) and their gradients (in backward) are multiplied by bf16 weights.
public enum Activations {
    /// In fp32: weights are widened to fp32.
    EXACT("as they are"),
    /// Each as the sum of two bf16 numbers, with a relative error of at most 2⁻¹⁷: log-probabilities of small
    /// models are off by some 1e-4. Half as fast as [#ROUNDED] for many rows, about as fast for one row.
    SPLIT("split in two"),
    /// Each rounded to one bf16 number, with a relative error of at most 2⁻⁹: log-probabilities are off by
    /// some hundredths.
    ROUNDED("rounded"),
    /// [#SPLIT] for weights with at most [#SMALL] inputs or outputs, which cost little; [#ROUNDED] for larger
    /// ones.
    MIXED("rounded beside large weights, else split in two");

    /// A weight is small if its smaller dimension is at most this.
    public static final int SMALL = 512;

    private final String description;

    Activations(String description) {
        this.description = description;
    }

    /// Reads `bios.engine.bf16-activations`; empty for `auto`, where the backend decides.
    public static Optional<Activations> of(Config program) {
        String name = program.getString("bios.engine.bf16-activations");
        return switch (name) {
            case "auto" -> Optional.empty();
            case "exact" -> Optional.of(EXACT);
            case "split" -> Optional.of(SPLIT);
            case "rounded" -> Optional.of(ROUNDED);
            case "mixed" -> Optional.of(MIXED);
            default -> throw new ConfigException.BadValue(program.origin(), "bios.engine.bf16-activations",
                    name + " is none of auto, exact, split, rounded and mixed");
        };
    }

    /// The treatment in words.
    public String description() {
        return description;
    }

    /// The number that a bf16 weight `[out, in]` multiplies in place of an activation x.
    public float operand(float x, int out, int in) {
        return switch (this) {
            case EXACT -> x;
            case SPLIT -> HalfFloats.split(x);
            case ROUNDED -> HalfFloats.rounded(x);
            case MIXED -> split(out, in) ? HalfFloats.split(x) : HalfFloats.rounded(x);
        };
    }

    /// Whether activations are split in two for a bf16 weight of this shape.
    public boolean split(int out, int in) {
        return this == SPLIT || this == MIXED && Math.min(out, in) <= SMALL;
    }
}
