package bios.worker.kernel;

import java.util.Arrays;

/// Softmax attention of one query over its keys, processed in blocks of [#BLOCK] positions from the first,
/// with a running maximum and sum (Milakov & Gimelshein 2018; Dao et al. 2022): out = Σ
/// softmax(scale·q·kⱼ)·vⱼ. A query uses only its own row and its own range of keys, so its bits do not depend
/// on other queries.
public final class Attention {
    /// Positions of one block of keys.
    public static final int BLOCK = 64;

    private Attention() {}

    /// The running state of one query: the weighted sum of values so far, relative to exp(max).
    public static final class Query {
        final float[] q;
        final float[] sum;
        final float[] weights = new float[BLOCK];
        float max;
        double total;

        /// A query of a head of `headDim` elements.
        public Query(int headDim) {
            q = new float[headDim];
            sum = new float[headDim];
        }

        /// The query's row, to be filled before [#begin].
        public float[] row() {
            return q;
        }

        /// Resets the state and multiplies the row by `scale`.
        public void begin(float scale) {
            for (int d = 0; d < q.length; d++) q[d] *= scale;
            Arrays.fill(sum, 0);
            max = Float.NEGATIVE_INFINITY;
            total = 0;
        }

        /// Adds the keys from..to of a block. `keys` are transposed `[headDim, BLOCK]`, `values` `[BLOCK,
        /// headDim]`.
        public void addBlock(float[] keys, float[] values, int from, int to) {
            if (from >= to) return;
            scores(weights, q, keys);
            float top = max;
            for (int j = from; j < to; j++) top = Math.max(top, weights[j]);
            if (top != max) {
                float shrink = total == 0 ? 0 : Exp.exp(max - top);
                for (int d = 0; d < sum.length; d++) sum[d] *= shrink;
                total *= shrink;
                max = top;
            }
            Exp.exp(weights, weights, BLOCK, 1, top);
            for (int j = from; j < to; j++) {
                float w = weights[j];
                total += w;
                for (int d = 0, at = j * sum.length; d < sum.length; d++) sum[d] += w * values[at + d];
            }
        }

        /// out ← the result; returns the logarithm of the sum of the exponentials of the scores.
        public float end(float[] out) {
            float inverse = (float) (1 / total);
            for (int d = 0; d < sum.length; d++) out[d] = sum[d] * inverse;
            return (float) (max + Math.log(total));
        }
    }

    /// s[j] ← q·keys[j] for a whole block of transposed keys.
    static void scores(float[] s, float[] q, float[] keys) {
        Arrays.fill(s, 0, BLOCK, 0);
        for (int d = 0; d < q.length; d++) {
            float a = q[d];
            for (int j = 0, at = d * BLOCK; j < BLOCK; j++) s[j] += a * keys[at + j];
        }
    }

    /// The gradient of one query and one block of keys from..to: with pⱼ = exp(scale·q·kⱼ - lse),
    /// dsⱼ = scale·pⱼ·(dout·vⱼ - delta), delta = dout·out: dq += Σ dsⱼ·kⱼ, dk[j] += dsⱼ·q, dv[j] += pⱼ·dout.
    /// keysT, valuesT `[headDim, BLOCK]`; keys, dk, dv `[BLOCK, headDim]`.
    public static void backwardAdd(float[] dq, float[] dk, float[] dv, float[] dout, float delta, float lse,
            float[] q, float[] keys, float[] keysT, float[] valuesT, int from, int to, float scale, float[] p,
            float[] dp) {
        int n = q.length;
        scores(p, q, keysT);
        for (int j = 0; j < BLOCK; j++) p[j] *= scale;
        Exp.exp(p, p, BLOCK, 1, lse);
        scores(dp, dout, valuesT);
        for (int j = from; j < to; j++) {
            float w = p[j];
            float ds = scale * w * (dp[j] - delta);
            int at = j * n;
            for (int d = 0; d < n; d++) {
                dv[at + d] += w * dout[d];
                dk[at + d] += ds * q[d];
                dq[d] += ds * keys[at + d];
            }
        }
    }
}
