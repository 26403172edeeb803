package bios.worker.kernel;

/// Root mean square norm of a row (Zhang & Sennrich 2019): y = x·inverse·weight, inverse = 1/√(mean(x²) +
/// eps).
public final class RmsNorm {
    private RmsNorm() {}

    /// y[0..n) ← the norm of x[0..n); returns inverse.
    public static float forward(float[] y, float[] x, float[] weight, int n, float eps) {
        float inverse = (float) (1 / Math.sqrt(Sums.dot(x, x, n) / n + eps));
        for (int i = 0; i < n; i++) y[i] = x[i] * inverse * weight[i];
        return inverse;
    }

    /// dx += inverse·(dy·weight − x·inverse²·mean(dy·weight·x)). `scaled` is room for n values.
    public static void backwardAdd(float[] dx, float[] dy, float[] x, float inverse, float[] weight, int n,
            float[] scaled) {
        for (int i = 0; i < n; i++) scaled[i] = dy[i] * weight[i];
        float mean = (float) (Sums.dot(scaled, x, n) / n * inverse * inverse);
        for (int i = 0; i < n; i++) dx[i] += inverse * (scaled[i] - x[i] * mean);
    }
}
