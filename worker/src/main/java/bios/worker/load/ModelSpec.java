package bios.worker.load;

import bios.protocol.model.TargetModule;
import java.util.List;
import java.util.Set;

/// The properties of a model in `config.json` and `generation_config.json`. Model families differ only by
/// this data.
///
/// @param architecture `architectures[0]`
/// @param vocabularySize rows of the embedding
/// @param hidden width of the residual stream
/// @param intermediate width of the gated layer
/// @param heads query heads
/// @param kvHeads key-value heads, a divisor of `heads`
/// @param headDim elements of a head, even
/// @param eps of all RMS norms
/// @param tiedHead whether the output head is the embedding
/// @param qkvBias whether q, k and v have a bias
/// @param outputBias whether o has a bias
/// @param mlpBias whether gate, up and down have a bias
/// @param headNorms whether q and k are normed per head
/// @param windows per layer, the number of positions that a query attends to, its own included; 0: all up to
///     its own
/// @param contextLength the most positions of a sequence
/// @param endTokens tokens that end a text
public record ModelSpec(String architecture, int vocabularySize, int hidden,
        int intermediate, int layers, int heads, int kvHeads, int headDim, float eps, boolean tiedHead,
        boolean qkvBias, boolean outputBias, boolean mlpBias, boolean headNorms, Rope rope,
        List<Integer> windows, int contextLength, Set<Integer> endTokens) {

    /// heads · headDim: columns of q and of the attention's output.
    public int queryColumns() {
        return heads * headDim;
    }

    /// kvHeads · headDim: columns of k and v.
    public int keyColumns() {
        return kvHeads * headDim;
    }

    /// Columns of the module's input.
    public int in(TargetModule target) {
        return switch (target) {
            case Q, K, V, GATE, UP, HEAD -> hidden;
            case O -> queryColumns();
            case DOWN -> intermediate;
        };
    }

    /// Columns of the module's output.
    public int out(TargetModule target) {
        return switch (target) {
            case Q -> queryColumns();
            case K, V -> keyColumns();
            case O, DOWN -> hidden;
            case GATE, UP -> intermediate;
            case HEAD -> vocabularySize;
        };
    }

    /// Whether the module adds a bias.
    public boolean biased(TargetModule target) {
        return switch (target) {
            case Q, K, V -> qkvBias;
            case O -> outputBias;
            case GATE, UP, DOWN -> mlpBias;
            case HEAD -> false;
        };
    }
}
