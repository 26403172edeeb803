package bios.worker.sample;

import bios.protocol.sampling.SamplingParams;
import bios.worker.device.Device;
import bios.worker.kernel.Exp;
import bios.worker.kernel.Sums;
import java.util.Arrays;

/// How one token is drawn from logits: divided by the temperature, then the `topK` largest, then the smallest
/// set of the most likely of these with probability of at least `topP` among them (Holtzman et al. 2020). Of
/// equal logits the lower id counts as the larger. Pure: the same logits and chance give the same token.
///
/// @param temperature 0: the largest logit, whatever the rest says
/// @param topK -1 for all
/// @param topP above 0, at most 1
record Draw(double temperature, int topK, double topP) {
    private static final int BLOCK = 1024;

    static Draw of(SamplingParams params) {
        return new Draw(params.temperature(), params.topK(), params.topP());
    }

    /// Whether log-probabilities are those of the logits as they are.
    boolean unscaled() {
        return temperature == 0 || temperature == 1;
    }

    /// logits in place ← (logits - max) / temperature, which no temperature makes infinite at its top; as
    /// they are at temperatures 0 and 1.
    void scale(float[] logits) {
        if (unscaled()) return;
        float max = logits[Ranking.best(logits)];
        for (int i = 0; i < logits.length; i++) logits[i] = (float) ((logits[i] - max) / temperature);
    }

    /// The token for a number in [0, 1).
    ///
    /// @param scaled logits behind [#scale]
    int token(float[] scaled, double chance) {
        int best = Ranking.best(scaled);
        if (temperature == 0) return best;
        float max = scaled[best];
        boolean some = topK != -1 && topK < scaled.length;
        if (!some && topP == 1) return fromAll(scaled, max, chance);
        return fromRanked(scaled, some ? Ranking.top(scaled, topK) : nucleus(scaled, max), max, chance);
    }

    /// Whether [#block] and [#within] do: every logit as it is may be drawn, or the largest only.
    boolean simple() {
        return temperature == 0 || temperature == 1 && topK == -1 && topP == 1;
    }

    /// The block of [Device#WORDS] logits from which a [#simple] draw takes its token.
    ///
    /// @param maxima, sums what [Device#softmaxBlocks] says of the row
    /// @param left a number in [0, 1)
    Place block(float[] maxima, float[] sums, double left) {
        int best = Ranking.best(maxima);
        if (temperature == 0) return new Place(best, 0);
        double[] shares = new double[sums.length];
        for (int i = 0; i < sums.length; i++) shares[i] = sums[i] * weight(maxima[i], maxima[best]);
        double rest = left * Arrays.stream(shares).sum();
        int block = 0;
        while (block < shares.length - 1 && rest >= shares[block]) rest -= shares[block++];
        if (shares[block] == 0) return new Place(best, 0);   // rounding only
        return new Place(block, rest / weight(maxima[block], maxima[best]));
    }

    /// A block, and how much of its sum lies before the token.
    record Place(int block, double rest) {}

    /// The token of a block, counted from its first.
    int within(float[] logits, float max, double rest) {
        if (temperature == 0) return Ranking.best(logits);
        int last = -1;
        for (int i = 0; i < logits.length; i++) {
            double w = weight(logits[i], max);
            if (w == 0) continue;
            last = i;
            rest -= w;
            if (rest < 0) return i;
        }
        return last >= 0 ? last : Ranking.best(logits);      // rounding only
    }

    /// The vocabulary in blocks: which one, then which token of it.
    private static int fromAll(float[] scaled, float max, double chance) {
        double[] sums = blocks(scaled, max);
        double left = chance * Arrays.stream(sums).sum();
        int block = 0;
        while (block < sums.length - 1 && left >= sums[block]) left -= sums[block++];
        int last = -1;
        for (int i = block * BLOCK; i < Math.min(scaled.length, (block + 1) * BLOCK); i++) {
            double w = weight(scaled[i], max);
            if (w == 0) continue;
            last = i;
            left -= w;
            if (left < 0) return i;
        }
        return last >= 0 ? last : Ranking.best(scaled);   // rounding only
    }

    /// Σ exp(z - max) of each block; elements far below count as the least that fp32 has left.
    private static double[] blocks(float[] scaled, float max) {
        double[] sums = new double[Math.ceilDiv(scaled.length, BLOCK)];
        float[] part = new float[BLOCK];
        for (int block = 0; block < sums.length; block++) {
            int n = Math.min(BLOCK, scaled.length - block * BLOCK);
            System.arraycopy(scaled, block * BLOCK, part, 0, n);
            Exp.exp(part, part, n, 1, max);
            sums[block] = Sums.sum(part, n);
        }
        return sums;
    }

    /// A set that holds the most likely tokens with probability topP, without sorting the vocabulary: tokens
    /// below (1 - topP) / n have together less than 1 - topP. Half of it leaves room for rounding.
    private int[] nucleus(float[] scaled, float max) {
        double total = Arrays.stream(blocks(scaled, max)).sum();
        double least = 0.5 * (1 - topP) / scaled.length * total;
        return Ranking.downFrom(scaled, (float) (max + Math.log(Math.max(least, Double.MIN_NORMAL))));
    }

    private int fromRanked(float[] scaled, int[] ranked, float max, double chance) {
        double all = 0;
        if (topK != -1) for (int id : ranked) all += weight(scaled[id], max);
        else all = Arrays.stream(blocks(scaled, max)).sum();
        double kept = 0;
        int n = 0;
        while (n < ranked.length && (n == 0 || kept < topP * all)) kept += weight(scaled[ranked[n++]], max);
        double left = chance * kept;
        for (int i = 0; i < n; i++) {
            left -= weight(scaled[ranked[i]], max);
            if (left < 0) return ranked[i];
        }
        return ranked[n - 1];
    }

    /// exp(z - max), 0 where fp32 has nothing left of it.
    private static double weight(float z, float max) {
        float below = z - max;
        return below > -87 ? Exp.exp(below) : 0;
    }
}
