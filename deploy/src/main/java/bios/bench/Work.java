package bios.bench;

import java.util.List;

/// The floating-point operations of the necessary matrix products of a pass. Frozen weights have no gradient;
/// attention is causal, so half the square counts; operations that are repeated to save memory count once.
///
/// @param base products with frozen weights
/// @param lowRank products with adapters
/// @param attention products of queries with keys and of weights with values, and their gradients
record Work(double base, double lowRank, double attention) {
    /// q, k and v: in the first layer the gradient of their input is not needed.
    private static final int FIRST_INPUTS = 3;

    double all() {
        return base + lowRank + attention;
    }

    Work plus(Work other) {
        return new Work(base + other.base, lowRank + other.lowRank, attention + other.attention);
    }

    /// Forward and backward of sequences of these lengths, with an adapter on all linear layers.
    static Work training(Shape shape, int rank, int[] lengths) {
        double tokens = tokens(lengths);
        List<Linear> linears = shape.linears();
        double base = 4.0 * shape.head().weights();
        double lowRank = 0;
        for (Linear linear : linears) {
            base += 4.0 * shape.layers() * linear.weights();
            // forward x·Aᵀ and xa·Bᵀ; backward dy·B, dyᵀ·xa, dxaᵀ·x and dxa·A
            lowRank += 6.0 * shape.layers() * rank * (linear.in() + linear.out());
        }
        for (Linear linear : linears.subList(0, FIRST_INPUTS)) {
            base -= 2.0 * linear.weights();
            lowRank -= 2.0 * rank * linear.in();
        }
        return new Work(tokens * base, tokens * lowRank, 6 * attention(shape, lengths));
    }

    /// Forward of prompts of these lengths, with an adapter on all linear layers; logits for the last token.
    static Work prefill(Shape shape, int rank, int[] lengths) {
        double tokens = tokens(lengths);
        double base = 0;
        double lowRank = 0;
        for (Linear linear : shape.linears()) {
            base += 2.0 * shape.layers() * linear.weights();
            lowRank += 2.0 * shape.layers() * rank * (linear.in() + linear.out());
        }
        return new Work(tokens * base + 2.0 * lengths.length * shape.head().weights(), tokens * lowRank,
                2 * attention(shape, lengths));
    }

    private static double tokens(int[] lengths) {
        double tokens = 0;
        for (int length : lengths) tokens += length;
        return tokens;
    }

    /// One product of a causal attention: 2 · headDim for each of half the pairs.
    private static double attention(Shape shape, int[] lengths) {
        double pairs = 0;
        for (int length : lengths) pairs += 0.5 * length * length;
        return 2.0 * shape.layers() * shape.heads() * shape.headDim() * pairs;
    }
}
