package bios.protocol.model;

import bios.protocol.Invalid;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/// The shape and seed of an adapter: y = x·Wᵀ + (alpha / rank)·(x·Aᵀ)·Bᵀ on each target (Hu et al. 2021).
///
/// @param rank rows of A and columns of B, 1 to 256
/// @param alpha numerator of the scale, greater than 0
/// @param seed of A's initial values; B starts at zero
/// @param targets the layers that have adapters, in the order of [TargetModule], at least one
public record LoraSpec(int rank, double alpha, long seed, List<TargetModule> targets) {
    /// The largest rank.
    public static final int MAX_RANK = 256;
    /// All linear layers except the output head.
    public static final Set<TargetModule> ALL_LINEAR =
            Set.copyOf(EnumSet.complementOf(EnumSet.of(TargetModule.HEAD)));

    /// What is wrong with an alpha where [#scales] is false.
    public static final String NO_SCALE = ", and alpha / rank is 0 or infinite in fp32; expected a number"
            + " like the rank";

    public LoraSpec {
        if (rank < 1 || rank > MAX_RANK)
            throw new Invalid("lora_config.rank", rank + " is outside 1 to " + MAX_RANK);
        if (!(alpha > 0) || Double.isInfinite(alpha))
            throw new Invalid("lora_config.alpha", alpha + " is not a positive number");
        if (targets.isEmpty())
            throw new Invalid("lora_config.target_modules", "is empty; name at least one layer");
        targets = List.copyOf(EnumSet.copyOf(targets));
    }

    /// alpha / rank.
    public double scale() {
        return alpha / rank;
    }

    /// Whether the scale is positive and finite in fp32, in which corrections are computed. Specs of earlier
    /// builds may have others, so only requests are held to it.
    public boolean scales() {
        return (float) scale() > 0 && Float.isFinite((float) scale());
    }

    /// Whether adapters of `other` have tensors of the same shapes and scale; seeds may differ.
    public boolean compatible(LoraSpec other) {
        return rank == other.rank && alpha == other.alpha && targets.equals(other.targets);
    }
}
