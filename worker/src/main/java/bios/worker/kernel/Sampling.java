package bios.worker.kernel;

import bios.worker.device.Draw;
import java.util.Arrays;

/// Selects the token of a [Draw] from a row of logits. Pure: the same logits and draw give the same token.
///
/// The random number is counter-based: it depends only on (seed, sample, token), so a request gives the same
/// tokens in any batch, on any worker, and after a restart. Of equal logits the one with the lower id ranks
/// first.
///
/// Sums over the vocabulary are computed in blocks of [#BLOCK] logits. A [#simple] draw reads the maximum and
/// the sum of each block first ([#softmaxBlocks]) and then one block only; all other draws read a scaled row.
public final class Sampling {
    /// Logits of one block.
    public static final int BLOCK = 1024;

    private static final long GOLDEN = 0x9E3779B97F4A7C15L;

    private Sampling() {}

    // ---- random numbers: SplitMix64's finalizer (Steele, Lea & Flood 2014) over the three in turn ----

    /// The random number of a draw, uniform in [0, 1) with 53 bits.
    public static double uniform(long seed, int sample, int token) {
        long stream = mix(mix(seed + GOLDEN) + (sample + 1) * GOLDEN);
        return (mix(stream + (token + 1) * GOLDEN) >>> 11) * 0x1p-53;
    }

    private static long mix(long z) {
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }

    // ---- the definition ----

    /// The token of a draw from a row of unscaled logits.
    public static int token(float[] logits, Draw draw) {
        double uniform = uniform(draw.seed(), draw.sample(), draw.token());
        if (!simple(draw)) {
            float[] scaled = logits.clone();
            scale(scaled, draw.temperature());
            return fromScaled(scaled, draw, uniform).token();
        }
        float[] maxima = new float[Math.ceilDiv(logits.length, BLOCK)];
        float[] sums = new float[maxima.length];
        softmaxBlocks(maxima, sums, logits);
        Place place = block(maxima, sums, draw, uniform);
        int first = place.block() * BLOCK;
        float[] block = Arrays.copyOfRange(logits, first, Math.min(logits.length, first + BLOCK));
        return first + within(block, maxima[place.block()], draw, place.rest());
    }

    /// A token, and log Σ exp of the scaled logits that top-k and top-p keep: NaN if they keep all. The
    /// log-probability of the token in the distribution that it is drawn from is its scaled logit minus that.
    public record Drawn(int token, double keptLogSumExp) {
        /// The log-probability of the token.
        ///
        /// @param lse log Σ exp of all scaled logits
        public float logprob(float logit, float lse) {
            return Double.isNaN(keptLogSumExp) ? logit - lse : (float) (logit - keptLogSumExp);
        }
    }

    /// Whether log-probabilities at this temperature are those of the unscaled logits.
    public static boolean unscaled(double temperature) {
        return temperature == 0 || temperature == 1;
    }

    /// logits in place ← (logits - max) / temperature, so that the largest is finite at any temperature;
    /// unchanged at temperatures 0 and 1.
    public static void scale(float[] logits, double temperature) {
        if (unscaled(temperature)) return;
        float max = logits[Ranking.best(logits)];
        for (int i = 0; i < logits.length; i++) logits[i] = (float) ((logits[i] - max) / temperature);
    }

    // ---- a draw from a scaled row ----

    /// The token for a number in [0, 1).
    ///
    /// @param scaled logits after [#scale]
    public static Drawn fromScaled(float[] scaled, Draw draw, double uniform) {
        int best = Ranking.best(scaled);
        if (draw.temperature() == 0) return new Drawn(best, Double.NaN);
        float max = scaled[best];
        boolean some = draw.topK() != -1 && draw.topK() < scaled.length;
        if (!some && draw.topP() == 1) return new Drawn(fromAll(scaled, max, uniform), Double.NaN);
        int[] ranked = some ? Ranking.top(scaled, draw.topK()) : nucleus(scaled, max, draw.topP());
        // empty only if a logit is not finite
        if (ranked.length == 0) return new Drawn(best, Double.NaN);
        double all = 0;
        if (some) for (int id : ranked) all += weight(scaled[id], max);
        else all = Arrays.stream(blocks(scaled, max)).sum();
        return fromRanked(scaled, ranked, max, draw.topP() * all, uniform);
    }

    /// Draws from the vocabulary by blocks: first selects a block, then a token in it.
    private static int fromAll(float[] scaled, float max, double uniform) {
        double[] sums = blocks(scaled, max);
        double left = uniform * Arrays.stream(sums).sum();
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

    /// Σ exp(z - max) of each block; an underflow counts as the smallest value of exp.
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

    /// A superset of the most likely tokens with total probability topP, without sorting the vocabulary: all
    /// tokens below (1 - topP) / n together have less than 1 - topP. Half of this threshold is used, as a
    /// margin for rounding.
    private static int[] nucleus(float[] scaled, float max, double topP) {
        double total = Arrays.stream(blocks(scaled, max)).sum();
        double least = 0.5 * (1 - topP) / scaled.length * total;
        return Ranking.downFrom(scaled, (float) (max + Math.log(Math.max(least, Double.MIN_NORMAL))));
    }

    /// Draws from the first of the ranked tokens, as many as have a weight of at least `share`.
    private static Drawn fromRanked(float[] scaled, int[] ranked, float max, double share, double uniform) {
        double kept = 0;
        int n = 0;
        while (n < ranked.length && (n == 0 || kept < share))
            kept += weight(scaled[ranked[n++]], max);
        double left = uniform * kept;
        int i = 0;
        while (i < n - 1 && (left -= weight(scaled[ranked[i]], max)) >= 0) i++;
        return new Drawn(ranked[i], max + Math.log(kept));
    }

    /// exp(z - max), 0 if it underflows in fp32.
    private static double weight(float z, float max) {
        float below = z - max;
        return below > -87 ? Exp.exp(below) : 0;
    }

    // ---- a draw that reads one block of logits ----

    /// Whether a draw takes the largest logit, or samples from unscaled logits without top-k and top-p; then
    /// [#block] and [#within] suffice.
    public static boolean simple(Draw draw) {
        return draw.temperature() == 0 || draw.temperature() == 1 && draw.topK() == -1 && draw.topP() == 1;
    }

    /// The maximum of each block of logits, and Σ exp(logit - maximum).
    public static void softmaxBlocks(float[] maxima, float[] sums, float[] logits) {
        for (int b = 0; b < maxima.length; b++) {
            float[] part = Arrays.copyOfRange(logits, b * BLOCK, Math.min(logits.length, (b + 1) * BLOCK));
            maxima[b] = Sums.max(part, part.length);
            Exp.exp(part, part, part.length, 1, maxima[b]);
            sums[b] = (float) Sums.sum(part, part.length);
        }
    }

    /// The block of logits from which a [#simple] draw takes its token.
    ///
    /// @param maxima, sums the row's [#softmaxBlocks]
    /// @param uniform a number in [0, 1)
    public static Place block(float[] maxima, float[] sums, Draw draw, double uniform) {
        int best = Ranking.best(maxima);
        if (draw.temperature() == 0) return new Place(best, 0);
        double[] shares = new double[sums.length];
        for (int i = 0; i < sums.length; i++) shares[i] = sums[i] * weight(maxima[i], maxima[best]);
        double rest = uniform * Arrays.stream(shares).sum();
        int block = 0;
        while (block < shares.length - 1 && rest >= shares[block]) rest -= shares[block++];
        if (shares[block] == 0) return new Place(best, 0);   // rounding only
        return new Place(block, rest / weight(maxima[block], maxima[best]));
    }

    /// A block, and the part of its sum before the token.
    public record Place(int block, double rest) {}

    /// The index of the token in its block.
    ///
    /// @param max the block's maximum
    /// @param rest [Place#rest]
    public static int within(float[] logits, float max, Draw draw, double rest) {
        if (draw.temperature() == 0) return Ranking.best(logits);
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
}
