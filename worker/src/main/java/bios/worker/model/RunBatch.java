package bios.worker.model;

import static bios.protocol.Require.require;

import bios.protocol.run.LossFunction;
import bios.worker.adapter.Adapter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/// One run's share of a training pass, on the host: whole sequences and their targets.
///
/// @param adapter empty: the base model itself
/// @param sequences token ids, each sequence from position 0, none empty
/// @param targetsEach targets of each position, by sequence
/// @param targets token ids for the positions of all sequences, one after another
/// @param loss whose gradient is computed by backward; empty: forward only
public record RunBatch(Optional<Adapter> adapter, List<int[]> sequences, int[] targetsEach, int[] targets,
        Optional<LossInputs> loss) {
    public RunBatch {
        sequences = List.copyOf(sequences);
        require(targetsEach.length == sequences.size(), "%d counts of targets for %d sequences",
                targetsEach.length, sequences.size());
        int count = 0;
        for (int i = 0; i < targetsEach.length; i++)
            count = Math.addExact(count, Math.multiplyExact(sequences.get(i).length, targetsEach[i]));
        require(targets.length == count, "%d targets, not %d", targets.length, count);
        loss.ifPresent(l -> require(l.weights().length == targets.length
                && l.sampled().length == targets.length, "%d weights and %d log-probabilities for %d targets",
                l.weights().length, l.sampled().length, targets.length));
        require(loss.isEmpty() || adapter.isPresent(), "a gradient without adapter");
    }

    /// A batch with one target for each position.
    public RunBatch(Optional<Adapter> adapter, List<int[]> sequences, int[] targets,
            Optional<LossInputs> loss) {
        this(adapter, sequences, ones(sequences.size()), targets, loss);
    }

    private static int[] ones(int n) {
        int[] ones = new int[n];
        Arrays.fill(ones, 1);
        return ones;
    }

    /// Positions of all sequences.
    public int rows() {
        return sequences.stream().mapToInt(s -> s.length).sum();
    }

    /// Neighboring sequences with equally many targets for a position.
    ///
    /// @param row its first position, counted in the batch
    /// @param rows positions
    /// @param target its first target, counted in the batch
    /// @param each targets of each position
    record Segment(int row, int rows, int target, int each) {}

    /// The segments, as few as there can be.
    List<Segment> segments() {
        List<Segment> all = new ArrayList<>();
        int row = 0;
        int target = 0;
        for (int i = 0; i < targetsEach.length; i++) {
            int n = sequences.get(i).length;
            Segment last = all.isEmpty() ? null : all.getLast();
            if (last != null && last.each == targetsEach[i])
                all.set(all.size() - 1, new Segment(last.row, last.rows + n, last.target, last.each));
            else all.add(new Segment(row, n, target, targetsEach[i]));
            row += n;
            target += n * targetsEach[i];
        }
        return all;
    }

    /// A loss function with its settings and its inputs for every target; formulas in
    /// [bios.worker.kernel.Losses].
    ///
    /// @param weights weights of cross_entropy, advantages of the others
    /// @param sampled log-probabilities under the sampling policy; zeros for cross_entropy
    /// @param bounds own clipping thresholds; empty: all have `low` and `high`
    /// @param low lower clipping threshold (ppo, cispo)
    /// @param high upper clipping threshold (ppo, cispo)
    /// @param beta strength of the square (dro)
    public record LossInputs(LossFunction function, float[] weights, float[] sampled,
            Optional<Bounds> bounds, double low, double high, double beta) {
        /// Clipping thresholds of every target; NaN: `low` or `high` of the loss.
        public record Bounds(float[] low, float[] high) {}

        /// Whether the gradient of targets `from` to `from + count` is zero for any output of the model:
        /// prompts have no weight, and half of a typical batch need not pay for the product with the
        /// vocabulary.
        boolean zeroGradient(int from, int count) {
            if (function == LossFunction.DRO) return false;
            for (int i = from; i < from + count; i++) if (weights[i] != 0) return false;
            return true;
        }
    }
}
