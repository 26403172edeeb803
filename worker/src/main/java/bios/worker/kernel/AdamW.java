package bios.worker.kernel;

/// AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW computes it, with every scalar rounded to a float
/// first.
///
/// @param decay 1 - learning rate · weight decay
/// @param rate learning rate / (1 - β1^step)
/// @param root √(1 - β2^step)
public record AdamW(float gradScale, float beta1, float beta2, float oneLessBeta1, float oneLessBeta2,
        float eps, float decay, float rate, float root) {

    /// The scalars of step number `step`, from 1.
    public static AdamW at(float gradScale, double learningRate, double beta1, double beta2, double eps,
            double weightDecay, long step) {
        return new AdamW(gradScale, (float) beta1, (float) beta2, (float) (1 - beta1), (float) (1 - beta2),
                (float) eps, (float) (1 - learningRate * weightDecay),
                (float) (learningRate / (1 - Math.pow(beta1, step))),
                (float) Math.sqrt(1 - Math.pow(beta2, step)));
    }

    /// What of a step is not finite, as bits; 0 when all of it is.
    public static final int GRADIENT = 1;
    /// See [#GRADIENT].
    public static final int MOMENTS = 2;
    /// See [#GRADIENT].
    public static final int WEIGHTS = 4;

    /// The factor by which clipping to `largestNorm` scales a gradient, as torch.nn.utils.clip_grad_norm_
    /// does: min(1, largestNorm / (norm + 1e-6)); 1 if `largestNorm` is 0.
    public static float clip(double norm, double largestNorm) {
        return (float) (largestNorm > 0 ? Math.min(1, largestNorm / (norm + 1e-6)) : 1);
    }

    /// w, m, v [0..n) ← their values after a step with the gradient gradScale·g.
    public void step(float[] w, float[] m, float[] v, float[] g, int n) {
        for (int i = 0; i < n; i++) {
            float gradient = gradScale * g[i];
            float first = beta1 * m[i] + oneLessBeta1 * gradient;
            float second = beta2 * v[i] + oneLessBeta2 * gradient * gradient;
            m[i] = first;
            v[i] = second;
            w[i] = w[i] * decay - rate * first / ((float) Math.sqrt(second) / root + eps);
        }
    }

    /// What is not finite in [0..n) of the gradient g and of w, m, v after [#step]: [#GRADIENT], [#MOMENTS]
    /// or [#WEIGHTS], the first that applies; 0 if everything is finite. A moment m that is not finite makes
    /// w not finite, and a gradient makes v not finite, so that two arrays decide.
    public static int notFinite(float[] w, float[] m, float[] v, float[] g, int n) {
        if (Sums.finite(w, n) && Sums.finite(v, n)) return 0;
        if (!Sums.finite(g, n)) return GRADIENT;
        return Sums.finite(m, n) && Sums.finite(v, n) ? WEIGHTS : MOMENTS;
    }
}
