package bios.worker.kernel;

/// Sums in double precision over four interleaved lanes: lane l sums the elements i ≡ l (mod 4) in order, the
/// result is (l0 + l1) + (l2 + l3). The order depends on n alone.
public final class Sums {
    private Sums() {}

    /// Σ x[i], i < n.
    public static double sum(float[] x, int n) {
        return sum(x, 0, n);
    }

    /// Σ x[from + i], i < count.
    public static double sum(float[] x, int from, int count) {
        double a = 0, b = 0, c = 0, d = 0;
        int n = from + count;
        int i = from;
        for (; i + 3 < n; i += 4) {
            a += x[i];
            b += x[i + 1];
            c += x[i + 2];
            d += x[i + 3];
        }
        if (i < n) a += x[i];
        if (i + 1 < n) b += x[i + 1];
        if (i + 2 < n) c += x[i + 2];
        return (a + b) + (c + d);
    }

    /// Σ x[i]·y[i].
    public static double dot(float[] x, float[] y, int n) {
        double a = 0, b = 0, c = 0, d = 0;
        int i = 0;
        for (; i + 3 < n; i += 4) {
            a += (double) x[i] * y[i];
            b += (double) x[i + 1] * y[i + 1];
            c += (double) x[i + 2] * y[i + 2];
            d += (double) x[i + 3] * y[i + 3];
        }
        if (i < n) a += (double) x[i] * y[i];
        if (i + 1 < n) b += (double) x[i + 1] * y[i + 1];
        if (i + 2 < n) c += (double) x[i + 2] * y[i + 2];
        return (a + b) + (c + d);
    }

    /// Whether x[0..n) has neither NaN nor an infinity: 0·x is 0 for all others.
    public static boolean finite(float[] x, int n) {
        float a = 0, b = 0, c = 0, d = 0;
        int i = 0;
        for (; i + 3 < n; i += 4) {
            a += 0 * x[i];
            b += 0 * x[i + 1];
            c += 0 * x[i + 2];
            d += 0 * x[i + 3];
        }
        for (; i < n; i++) a += 0 * x[i];
        return (a + b) + (c + d) == 0;
    }

    /// The maximum of x[0..n), n ≥ 1; NaN if any element is.
    public static float max(float[] x, int n) {
        float m = x[0];
        for (int i = 1; i < n; i++) m = Math.max(m, x[i]);
        return m;
    }
}
