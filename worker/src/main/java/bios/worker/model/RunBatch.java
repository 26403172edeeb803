package bios.worker.model;

import static bios.protocol.Require.require;

import bios.protocol.run.LossFunction;
import bios.worker.adapter.Adapter;
import java.util.List;
import java.util.Optional;

/// One run's share of a training pass, on the host: whole sequences and their targets.
///
/// @param adapter empty: the base model itself
/// @param sequences token ids, each sequence from position 0, none empty
/// @param targets one token id for each position of all sequences, one after another
/// @param loss whose gradient is computed by backward; empty: forward only
public record RunBatch(Optional<Adapter> adapter, List<int[]> sequences, int[] targets,
        Optional<LossInputs> loss) {
    public RunBatch {
        sequences = List.copyOf(sequences);
        int rows = rows(sequences);
        require(targets.length == rows, "%d targets for %d rows", targets.length, rows);
        loss.ifPresent(l -> require(l.weights().length == rows && l.sampled().length == rows,
                "%d weights and %d log-probabilities for %d rows", l.weights().length, l.sampled().length,
                rows));
        require(loss.isEmpty() || adapter.isPresent(), "a gradient without adapter");
    }

    /// Positions of all sequences.
    public int rows() {
        return targets.length;
    }

    private static int rows(List<int[]> sequences) {
        return sequences.stream().mapToInt(s -> s.length).sum();
    }

    /// A loss function with its settings and its inputs for every position; formulas in
    /// [bios.worker.kernel.Losses].
    ///
    /// @param weights weights of cross_entropy, advantages of the others
    /// @param sampled log-probabilities under the sampling policy; zeros for cross_entropy
    /// @param low lower clipping threshold (ppo, cispo)
    /// @param high upper clipping threshold (ppo, cispo)
    /// @param beta strength of the square (dro)
    public record LossInputs(LossFunction function, float[] weights, float[] sampled, double low, double high,
            double beta) {
        /// Whether the gradient of positions `from` to `from + count` is zero for any output of the model:
        /// prompts have no weight, and half of a typical batch need not pay for the product with the
        /// vocabulary.
        boolean zeroGradient(int from, int count) {
            if (function == LossFunction.DRO) return false;
            for (int i = from; i < from + count; i++) if (weights[i] != 0) return false;
            return true;
        }
    }
}
